"""The fused loss against the framework's own, and its gradients against finite differences."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from processors import INTEL_WITH_AMX
from torch import Tensor
from torch.nn import functional

from seqba.nn import label_smoothed_cross_entropy
from seqba.nn.kernels.prepacked import chunked_product
from seqba.nn.kernels.processor import Processor

ROWS, WIDTH, VOCABULARY = 37, 6, 11


def make_inputs(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    hidden = torch.randn(ROWS, WIDTH, dtype=dtype, requires_grad=True)
    weight = torch.randn(VOCABULARY, WIDTH, dtype=dtype, requires_grad=True)
    bias = torch.randn(VOCABULARY, dtype=dtype, requires_grad=True)
    return hidden, weight, bias, torch.randint(0, VOCABULARY, (ROWS,))


@pytest.fixture(params=[1 << 21, 100, 1], ids=["one chunk", "chunks of 9 rows", "chunks of a row"])
def _chunks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seqba.nn.kernels.loss.CHUNK_ELEMENTS", request.param)
    monkeypatch.setattr("seqba.nn.kernels.loss.LARGE_CHUNK_ELEMENTS", 4 * request.param)
    monkeypatch.setattr("seqba.nn.kernels.loss.BLOCK_ELEMENTS", request.param // 2)


@pytest.mark.usefixtures("_chunks")
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_it_equals_the_frameworks_cross_entropy(smoothing: float) -> None:
    hidden, weight, bias, target = make_inputs()
    loss, nll = label_smoothed_cross_entropy(hidden, weight, target, bias=bias, smoothing=smoothing)
    ours = torch.autograd.grad(loss, (hidden, weight, bias))

    logits = hidden @ weight.t() + bias
    # fairseq spreads ε over the other V − 1 words, torch over all V.
    spread = smoothing * VOCABULARY / (VOCABULARY - 1)
    reference = functional.cross_entropy(logits, target, label_smoothing=spread, reduction="sum")
    torch.testing.assert_close(loss, reference)
    torch.testing.assert_close(nll, functional.cross_entropy(logits, target, reduction="sum"))
    for gradient, expected in zip(ours, torch.autograd.grad(reference, (hidden, weight, bias)), strict=True):
        torch.testing.assert_close(gradient, expected)


@pytest.mark.usefixtures("_chunks")
def test_gradcheck() -> None:
    hidden, weight, bias, target = make_inputs()

    def loss(hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return label_smoothed_cross_entropy(hidden, weight, target, bias=bias, smoothing=0.2)[0]

    assert torch.autograd.gradcheck(loss, (hidden, weight, bias))


def test_numbers_worked_by_hand() -> None:
    # p = (1/2, 1/4, 1/4), target 0, ε = 0.2: 0.8·ln 2 + 0.1·ln 4 + 0.1·ln 4 = 1.2·ln 2
    weight = torch.tensor([[math.log(2)], [0.0], [0.0]])
    loss, nll = label_smoothed_cross_entropy(torch.ones(1, 1), weight, torch.tensor([0]), smoothing=0.2)
    assert loss.item() == pytest.approx(1.2 * math.log(2))
    assert nll.item() == pytest.approx(math.log(2))


def test_a_second_backward_is_as_good_as_the_first() -> None:
    hidden, weight, _, target = make_inputs()
    loss, _ = label_smoothed_cross_entropy(hidden, weight, target)
    (first,) = torch.autograd.grad(3 * loss, hidden, retain_graph=True)
    (second,) = torch.autograd.grad(3 * loss, hidden)
    assert torch.equal(first, second)


def test_only_what_is_asked_for_gets_a_gradient() -> None:
    hidden, weight, _, target = make_inputs()
    loss, nll = label_smoothed_cross_entropy(hidden, weight.detach(), target)
    loss.backward()
    assert hidden.grad is not None
    assert weight.grad is None
    assert not nll.requires_grad
    with torch.no_grad():
        assert not label_smoothed_cross_entropy(hidden, weight, target)[0].requires_grad


@pytest.mark.parametrize(("wants_gradient", "copied"), [(True, 2), (False, 1)])
def test_the_weight_is_copied_for_the_way_back_only_where_a_gradient_goes_there(
    wants_gradient: bool, copied: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights: list[Tensor] = []

    def watched(weight: Tensor, bias: Tensor | None, rows: int) -> Any:
        weights.append(weight)
        return chunked_product(weight, bias, rows)

    monkeypatch.setattr("seqba.nn.kernels.loss.chunked_product", watched)
    hidden, weight, _, target = make_inputs(torch.float32)
    label_smoothed_cross_entropy(hidden if wants_gradient else hidden.detach(), weight.detach(), target)
    assert len(weights) == copied


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_validation_computes_no_gradient(mode: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    hidden, weight, bias, target = make_inputs()
    expected = label_smoothed_cross_entropy(hidden, weight, target, bias=bias)
    monkeypatch.setattr("seqba.nn.kernels.loss.torch.empty_like", pytest.fail)  # in which the gradient is written
    with mode():
        got = label_smoothed_cross_entropy(hidden, weight, target, bias=bias)
    torch.testing.assert_close(got, expected)


def test_extreme_logits_stay_finite() -> None:
    hidden = torch.full((2, 1), 1e4)
    weight = torch.tensor([[1.0], [-1.0]], requires_grad=True)
    loss, _ = label_smoothed_cross_entropy(hidden, weight, torch.tensor([0, 1]), smoothing=0.1)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(weight.grad).all()


@pytest.mark.usefixtures("_chunks")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_word_too_unlikely_for_a_float_has_its_loss_still(dtype: torch.dtype) -> None:
    """Its softmax is 0, whose logarithm says nothing."""
    torch.manual_seed(0)
    hidden, weight = torch.full((ROWS, 1), 200.0, requires_grad=True), torch.linspace(-1, 1, 11).unsqueeze(1)
    target = torch.randint(0, 11, (ROWS,))
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        loss, nll = label_smoothed_cross_entropy(hidden, weight, target, smoothing=0.1)
    logits = hidden @ weight.t()
    expected = functional.cross_entropy(logits, target, label_smoothing=0.11, reduction="sum")
    assert nll.item() > 87 * ROWS / 11  # some targets' probability is below the smallest float32
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5 if dtype == torch.float32 else 1e-2)
    assert nll.item() == pytest.approx(
        functional.cross_entropy(logits, target, reduction="sum").item(),
        rel=1e-5 if dtype == torch.float32 else 1e-2,
    )
    torch.testing.assert_close(
        torch.autograd.grad(loss, hidden)[0], torch.autograd.grad(expected, hidden)[0], rtol=1e-2, atol=1e-2
    )


def test_a_weight_that_is_no_number_makes_a_loss_that_is_none() -> None:
    hidden, weight, _, target = make_inputs(torch.float32)
    broken = weight.detach().clone()
    broken[3] = math.nan
    loss, nll = label_smoothed_cross_entropy(hidden, broken, target, smoothing=0.1)
    assert loss.isnan()
    assert nll.isnan()


@pytest.mark.parametrize(("vendor", "rows"), [("GenuineIntel", 4), ("AuthenticAMD", 2)])
def test_intels_processors_take_more_rows_at_a_time(vendor: str, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def watched(weight: Tensor, bias: Tensor | None, rows: int) -> Any:
        return lambda x: (seen.append(len(x)), functional.linear(x, weight, bias))[1]

    monkeypatch.setattr("seqba.nn.kernels.loss.chunked_product", watched)
    monkeypatch.setattr("seqba.nn.kernels.loss.processor", lambda: Processor(vendor))
    monkeypatch.setattr("seqba.nn.kernels.loss.CHUNK_ELEMENTS", 2 * VOCABULARY)
    monkeypatch.setattr("seqba.nn.kernels.loss.LARGE_CHUNK_ELEMENTS", 4 * VOCABULARY)
    hidden, weight, _, target = make_inputs(torch.float32)
    label_smoothed_cross_entropy(hidden, weight, target)
    assert max(seen) == rows


@pytest.mark.usefixtures("_chunks")
@pytest.mark.parametrize(
    ("machine", "widens"),
    [
        (Processor("AuthenticAMD"), False),
        (Processor("AuthenticAMD"), True),
        (INTEL_WITH_AMX, False),
    ],
    ids=["in bfloat16", "widened", "in tiles"],
)
def test_bfloat16_products_with_float32_sums_under_autocast(
    machine: Processor, widens: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seqba.nn.kernels.loss.is_widened", lambda like, dtype: widens and dtype == torch.bfloat16)
    for room in ("loss", "prepacked", "products"):
        monkeypatch.setattr(f"seqba.nn.kernels.{room}.processor", lambda: machine)
    inputs, target = (parts := make_inputs(torch.float32))[:3], parts[3]
    hidden, weight, bias = inputs
    with torch.autocast("cpu", torch.bfloat16):
        loss, nll = label_smoothed_cross_entropy(hidden, weight, target, bias=bias, smoothing=0.1)
    exact, exact_nll = label_smoothed_cross_entropy(hidden, weight, target, bias=bias, smoothing=0.1)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(exact.item(), rel=0.02)
    assert nll.item() == pytest.approx(exact_nll.item(), rel=0.02)
    for got, expected in zip(torch.autograd.grad(loss, inputs), torch.autograd.grad(exact, inputs), strict=True):
        assert got.dtype == torch.float32
        assert got.is_contiguous()
        assert (got - expected).norm() < 0.02 * expected.norm()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weight": torch.ones(5, 3)}, r"don't fit: \(4, 2\), \(5, 3\)"),
        ({"target": torch.zeros(3, dtype=torch.int64)}, r"target must be \(4,\), one word per row, not \(3,\)"),
        ({"smoothing": 1.0}, r"smoothing is 1.0; it must be in \[0, 1\)"),
        ({"bias": torch.ones(4)}, r"bias must be \(5,\), not \(4,\)"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(changes: dict[str, Any], message: str) -> None:
    arguments = {"hidden": torch.ones(4, 2), "weight": torch.ones(5, 2), "target": torch.zeros(4, dtype=torch.int64)}
    with pytest.raises(ValueError, match=message):
        label_smoothed_cross_entropy(**{**arguments, **changes})


def test_a_vocabulary_of_one_word_is_certain_of_it_with_smoothing_too() -> None:
    torch.manual_seed(3)
    hidden, weight = torch.randn(5, 4, requires_grad=True), torch.randn(1, 4, requires_grad=True)
    target = torch.zeros(5, dtype=torch.int64)
    loss, nll = label_smoothed_cross_entropy(hidden, weight, target, smoothing=0.1)
    loss.backward()  # type: ignore[no-untyped-call]
    assert (loss.item(), nll.item()) == (0, 0)
    assert hidden.grad is not None
    assert not hidden.grad.any()
