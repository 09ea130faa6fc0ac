"""The LSTM with one mask, on a CPU: against nn.LSTM, gradcheck, what it keeps, and when it is taken."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import seqba
import seqba.nn.lstm_layer as lstm_layer
from seqba.core import Noise, noise_context
from seqba.nn.kernels import masked_lstm as kernel
from seqba.nn.kernels import prepacked
from seqba.nn.kernels.casts import shared_casts
from seqba.nn.kernels.masked_lstm import masked_lstm, suits_prepacking
from seqba.nn.kernels.processor import Processor, onednn_has_bfloat16
from seqba.nn.kernels.products import HAS_ONEDNN

ROWS, LENGTH, INPUTS, HIDDEN, SCALE = 3, 5, 4, 6, 1 / 0.6
needs_onednn = pytest.mark.skipif(not HAS_ONEDNN, reason="this torch offers no oneDNN product")


def make_arguments(dtype: torch.dtype = torch.float64) -> tuple[list[Tensor], Tensor]:
    """x, h, c, W_ih, W_hh and the bias, all asking for gradients, and a mask."""
    generator = torch.Generator().manual_seed(7)
    shapes = [(ROWS, LENGTH, INPUTS), (ROWS, HIDDEN), (ROWS, HIDDEN), (4 * HIDDEN, INPUTS), (4 * HIDDEN, HIDDEN)]
    tensors = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in [*shapes, (4 * HIDDEN,)]]
    mask = (torch.rand(4 * HIDDEN, HIDDEN, generator=generator) > 0.4).to(torch.int8)
    return [tensor.to(dtype).requires_grad_() for tensor in tensors], mask


def ours(tensors: list[Tensor], mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    x, h, c, *weights = tensors
    y, last = masked_lstm(x, (h, c), *weights, mask.unsqueeze(0), SCALE)
    return y, *last


def theirs(tensors: list[Tensor], mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """nn.LSTM with the recurrent weights dropped by hand."""
    x, h, c, weight_ih, weight_hh, bias = tensors
    lstm = nn.LSTM(INPUTS, HIDDEN, batch_first=True, dtype=x.dtype)
    names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    weights = (weight_ih, weight_hh * mask * SCALE, bias, torch.zeros_like(bias))
    state = (h.unsqueeze(0), c.unsqueeze(0))
    y, (h, c) = torch.func.functional_call(lstm, dict(zip(names, weights, strict=True)), (x, state))
    return y, h[0], c[0]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_outputs_and_gradients_are_those_of_nn_lstm(dtype: torch.dtype, tolerance: float) -> None:
    tensors, mask = make_arguments(dtype)
    one, other = ours(tensors, mask), theirs(tensors, mask)
    generator = torch.Generator().manual_seed(1)
    upstream = [torch.randn(part.shape, generator=generator, dtype=torch.float64).to(dtype) for part in one]
    gradients = (torch.autograd.grad(parts, tensors, upstream) for parts in (one, other))
    for got, expected in zip((*one, *next(gradients)), (*other, *next(gradients)), strict=True):
        assert got.dtype == dtype
        assert torch.allclose(got, expected, rtol=tolerance, atol=10 * tolerance)


def test_gradcheck() -> None:
    tensors, mask = make_arguments()
    assert torch.autograd.gradcheck(lambda *tensors: ours(list(tensors), mask), tensors)


def test_a_second_backward_finds_everything_as_the_first_left_it() -> None:
    tensors, mask = make_arguments(torch.float32)
    y, _, _ = ours(tensors, mask)
    first = torch.autograd.grad(y.square().sum(), tensors[3:], retain_graph=True)
    second = torch.autograd.grad(y.square().sum(), tensors[3:])
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


def test_the_weights_and_the_state_stay_as_they_were() -> None:
    tensors, mask = make_arguments()
    before = [tensor.clone() for tensor in tensors]
    ours(tensors, mask)[0].sum().backward()
    assert all(torch.equal(now, then) for now, then in zip(tensors, before, strict=True))


def test_a_gradient_without_memory_of_its_own_is_taken_too() -> None:
    """The sum's gradient is one number, seen from every place."""
    tensors, mask = make_arguments(torch.float32)
    one, other = (torch.autograd.grad(run(tensors, mask)[0].sum(), tensors) for run in (ours, theirs))
    assert all(torch.allclose(got, expected, rtol=1e-5, atol=1e-5) for got, expected in zip(one, other, strict=True))


def test_one_step_is_a_sequence_too() -> None:
    (x, *rest), mask = make_arguments()
    tensors = [x.detach()[:, :1].requires_grad_(), *rest]
    one, other = (torch.autograd.grad(run(tensors, mask)[0].sum(), tensors) for run in (ours, theirs))
    assert all(torch.allclose(got, expected, rtol=1e-12) for got, expected in zip(one, other, strict=True))


def test_a_token_leaves_gates_states_and_input_and_the_weights_their_mask() -> None:
    tensors, mask = make_arguments()
    stores: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        stores[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        ours(tensors, mask)
    parameters = sum(tensor.untyped_storage().nbytes() for tensor in tensors[3:5])
    tokens, states = ROWS * LENGTH * (6 * HIDDEN + INPUTS), 2 * ROWS * HIDDEN
    assert sum(stores.values()) == parameters + mask.numel() + 8 * (tokens + states)


def test_the_state_does_not_hold_the_whole_sequence() -> None:
    _, h, c = ours(*make_arguments())
    assert all(part.untyped_storage().nbytes() == 8 * ROWS * HIDDEN for part in (h, c))


@needs_onednn
def test_it_is_for_large_layers_on_few_rows_in_float32() -> None:
    x, weight = torch.empty(20, 2, 8), torch.empty(4 * 900, 900)
    assert suits_prepacking(x, weight)
    assert not suits_prepacking(torch.empty(200, 2, 8), weight)
    assert not suits_prepacking(x, torch.empty(4 * 300, 300))
    assert not suits_prepacking(x, weight.double())


@needs_onednn
@pytest.mark.parametrize(("feature", "is_for_them"), [("amx_bf16", True), ("avx512_bf16", True), ("avx512f", False)])
def test_it_is_for_medium_layers_too_in_bfloat16_where_the_processor_multiplies_it(
    feature: str, is_for_them: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepacked, "processor", lambda: Processor(features=frozenset([feature])))
    x = torch.empty(200, 2, 8)
    with torch.autocast("cpu", torch.bfloat16):
        assert suits_prepacking(x, torch.empty(4 * 400, 400)) is is_for_them
        assert not suits_prepacking(x, torch.empty(4 * 300, 300))
    assert not suits_prepacking(x, torch.empty(4 * 400, 400))


@needs_onednn
@pytest.mark.skipif(not onednn_has_bfloat16(), reason="oneDNN has no bfloat16 here: a processor without AVX-512")
@pytest.mark.parametrize("feature", ["amx_bf16", "avx512_bf16", "avx512f"])
def test_in_bfloat16_outputs_and_gradients_are_near(feature: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepacked, "processor", lambda: Processor(features=frozenset([feature])))
    tensors, mask = make_arguments(torch.float32)
    exact = ours(tensors, mask)
    with shared_casts(), torch.autocast("cpu", torch.bfloat16):
        narrow = ours(tensors, mask)
    upstream = [torch.ones_like(part) for part in exact]
    gradients = [torch.autograd.grad(parts, tensors, upstream) for parts in (narrow, exact)]
    for got, expected in zip((*narrow, *gradients[0]), (*exact, *gradients[1]), strict=True):
        assert got.dtype == torch.float32
        assert 0 < (got - expected).norm() < 0.1 * expected.norm()


@needs_onednn
@pytest.mark.parametrize("plan", ["looped", 2])
def test_the_gradient_does_not_depend_on_the_plan(plan: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "LARGE_WEIGHT", 1)
    torch.manual_seed(3)
    layer, x = seqba.nn.WeightDroppedLSTM(INPUTS, HIDDEN, weight_dropout=0.4), torch.randn(ROWS, LENGTH, INPUTS)

    def loss(layer: nn.Module, x: Tensor) -> tuple[Tensor, float]:
        y, (h, c) = layer(x, (x.new_zeros(len(x), HIDDEN), x.new_zeros(len(x), HIDDEN)))
        return y.square().sum() + (h * c).sum(), float(y.numel())

    def gradient(plan: object) -> Tensor:
        layer.zero_grad()
        seqba.merged_gradient(layer, x, loss, copies=3, plan=plan, seed=1, update=0)
        return torch.cat([parameter.grad.flatten() for parameter in layer.parameters() if parameter.grad is not None])

    expected, got = gradient("stacked"), gradient(plan)
    assert (got - expected).norm() / expected.norm() < 1e-6


def layer_outputs(layer: nn.Module, copies: tuple[int, ...]) -> Tensor:
    """Output for some of the copies of one micro-batch, whose rows are all the same."""
    rows = [tensor.detach().repeat(len(copies), *[1] * (tensor.dim() - 1)) for tensor in make_arguments()[0][:3]]
    x, h, c = (tensor.float() for tensor in rows)
    with noise_context(Noise(0, 0, 0, copies, {id(module): name for name, module in layer.named_modules()})):
        y, _ = layer(x, (h, c))
    return y.view(len(copies), ROWS, LENGTH, HIDDEN)


@needs_onednn
def test_the_layer_takes_it_for_each_copy_and_computes_what_torch_s_lstm_computes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(3)
    layer, calls = seqba.nn.WeightDroppedLSTM(INPUTS, HIDDEN, weight_dropout=0.4), []
    by_torch = layer_outputs(layer, (0, 1, 2))

    def counted(x: Tensor, *arguments: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        calls.append(x.shape[0])
        return masked_lstm(x, *arguments)

    monkeypatch.setattr(kernel, "LARGE_WEIGHT", 1)
    monkeypatch.setattr(lstm_layer, "masked_lstm", counted)
    together = layer_outputs(layer, (0, 1, 2))
    assert calls == [ROWS] * 3
    assert torch.allclose(together, by_torch, atol=1e-6)
    for copy in range(3):
        assert torch.equal(together[copy], layer_outputs(layer, (copy,))[0])
    with torch.no_grad():
        layer_outputs(layer, (0,))
    layer.eval()
    layer_outputs(layer, (0,))
    assert len(calls) == 6
