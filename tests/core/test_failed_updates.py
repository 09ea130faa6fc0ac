"""Whatever an update fails of, and in whichever pass, gradients are afterwards what they were before."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rank_groups import run_groups
from small_network import Network, gradient_of, make_batch, mean_loss, relative_error, summed_loss
from torch import Tensor, nn

import seqba
from seqba.core import Plan
from seqba.distributed import Ranks
from seqba.noise.context import current_noise

PASSES = 4


def failing(kind: str, at: int, error: BaseException) -> Callable[[nn.Module, Any], Any]:
    """A loss function that fails in its pass `at`: before, in the forward, in the backward, or by what it returns."""
    calls = 0

    class Backward(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> Tensor:
            raise error

    def loss_fn(model: nn.Module, batch: Any) -> Any:
        nonlocal calls
        calls += 1
        total, weight = summed_loss(model, batch)
        if calls != at:
            return total, weight
        if kind == "forward":
            raise error
        if kind == "backward":
            return Backward.apply(model.enter.weight).sum() * 0 + total, weight
        return {"loss": (total, None), "weight": (total, weight + 1)}[kind]

    return loss_fn


@pytest.mark.parametrize("had", [False, True])
@pytest.mark.parametrize("at", [1, 3, 4])
@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("forward", RuntimeError("bad labels")),
        ("forward", KeyboardInterrupt()),
        ("forward", torch.OutOfMemoryError("no room")),
        ("backward", RuntimeError("bad labels")),
        ("backward", torch.OutOfMemoryError("no room")),
        ("loss", TypeError()),
        ("weight", ValueError()),
    ],
)
def test_gradients_are_what_they_were(network: Network, kind: str, error: BaseException, at: int, had: bool) -> None:
    batch = make_batch()
    if had:
        seqba.merged_gradient(network, batch, summed_loss, copies=PASSES, update=1)
        network.leave.bias.grad = None  # some have one, and some don't
    before = [
        (parameter.grad, None if parameter.grad is None else parameter.grad.clone())
        for parameter in parameters(network)
    ]
    with pytest.raises(type(error)):
        seqba.merged_gradient(
            network, batch, failing(kind, at, error), copies=PASSES, plan="looped", update=1, micro_batch=1
        )
    for parameter, (gradient, values) in zip(parameters(network), before, strict=True):
        assert parameter.grad is gradient
        assert values is None or torch.equal(gradient, values)


def parameters(model: nn.Module) -> list[nn.Parameter]:
    return list(model.parameters())


def test_a_loop_that_skips_a_failed_batch_goes_on_as_if_it_had_not_been_there(network: Network) -> None:
    batch = make_batch()
    seqba.merged_gradient(network, batch, summed_loss, copies=PASSES, plan="looped", update=2)
    expected = gradient_of(network)
    network.zero_grad()
    loss_fn = failing("forward", 3, RuntimeError("bad labels"))
    with pytest.raises(RuntimeError, match="bad labels"):
        seqba.merged_gradient(network, batch, loss_fn, copies=PASSES, plan="looped", update=1)
    seqba.merged_gradient(network, batch, summed_loss, copies=PASSES, plan="looped", update=2)
    assert torch.equal(gradient_of(network), expected)


def test_memory_that_runs_out_is_got_over_with_gradients_from_before(network: Network) -> None:
    """A smaller plan begins again from them, and doesn't count the failed passes."""
    batch = make_batch()

    def exhausting(model: nn.Module, batch: Any) -> Any:
        if len(batch[1]) > 12:
            raise torch.OutOfMemoryError("as a GPU would")
        return summed_loss(model, batch)

    seqba.merged_gradient(network, batch, summed_loss, copies=6, update=1)
    seqba.merged_gradient(network, batch, summed_loss, copies=6, plan="looped", update=1, micro_batch=1)
    expected = gradient_of(network)
    network.zero_grad()
    seqba.merged_gradient(network, batch, summed_loss, copies=6, update=1)
    plan = Plan(copies_per_pass=4, is_auto=True)
    seqba.merged_gradient(network, batch, exhausting, copies=6, plan=plan, update=1, micro_batch=1)
    assert plan.copies_per_pass == 2
    assert relative_error(gradient_of(network), expected) < 1e-6


def test_the_noise_of_a_pass_that_fails_is_freed_at_once(network: Network) -> None:
    """With all that it holds of a fork: an update that begins again needs the memory, and no collector runs before."""
    noises: list[weakref.ref[Any]] = []

    def loss_fn(model: nn.Module, batch: Any) -> Any:
        noises.append(weakref.ref(current_noise()))
        raise torch.OutOfMemoryError("as a GPU would")

    gc.disable()
    try:
        with pytest.raises(torch.OutOfMemoryError):
            seqba.merged_gradient(network, make_batch(), loss_fn, copies=4, plan=Plan(4, is_auto=True), update=1)
        assert [noise() for noise in noises[:-1]] == [None, None]
    finally:
        gc.enable()


def exhausted_by_four_copies(model: nn.Module, batch: Any) -> Any:
    if len(batch[1]) > 18:
        raise torch.OutOfMemoryError("as a GPU would")
    return summed_loss(model, batch)


def test_memory_that_runs_out_as_rows_are_repeated_is_got_over(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    repeated, sizes = seqba.core.grid.repeated, []

    def repeat(batch: Any, copies: int) -> Any:
        sizes.append(copies)
        assert len(sizes) < 9, "tried for ever"
        if copies == 2:
            raise torch.OutOfMemoryError("as a GPU would")
        return repeated(batch, copies)

    monkeypatch.setattr("seqba.core.grid.repeated", repeat)
    plan = Plan(copies_per_pass=4, is_auto=True)
    seqba.merged_gradient(network, make_batch(), exhausted_by_four_copies, copies=4, plan=plan, update=1)
    assert plan.copies_per_pass == 1


def test_memory_that_runs_out_between_passes_is_raised_also_where_a_pass_ran_out_before(network: Network) -> None:
    class Batches(list[Any]):
        asked = 0

        def __getitem__(self, number: Any) -> Any:
            self.asked += 1
            if self.asked == 2:
                raise torch.OutOfMemoryError("no room for the batch")
            assert self.asked == 1, "tried for ever"
            return super().__getitem__(number)

    plan, batches = Plan(copies_per_pass=4, is_auto=True), Batches([make_batch()])
    with pytest.raises(torch.OutOfMemoryError, match="no room for the batch"):
        seqba.grid_gradient(network, batches, exhausted_by_four_copies, copies=4, weight=24, plan=plan, update=1)


def fail_on_ranks(ranks: Ranks) -> dict[str, Any]:
    """Every rank's last pass fails; then an update succeeds, and its gradient is added to the one from before."""
    torch.manual_seed(1)
    model, batch = Network(), make_batch()
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    before = [parameter.grad for parameter in model.parameters()]
    loss_fn = failing("backward", 2, RuntimeError("bad labels"))
    try:
        seqba.merged_gradient(model, batch, loss_fn, copies=4, plan="looped", update=1, ranks=ranks)
    except RuntimeError as error:
        said = str(error)
    kept = all(parameter.grad is gradient for parameter, gradient in zip(model.parameters(), before, strict=True))
    return {"said": said, "kept": kept, "gradient": gradient_of(model)}


@pytest.mark.slow
def test_gradients_are_what_they_were_on_every_rank(tmp_path: Path) -> None:
    for result in run_groups(fail_on_ranks, [2], tmp_path).values():
        assert result["said"] == "bad labels"
        assert result["kept"]
        assert (result["gradient"] == 1).all()


@pytest.mark.parametrize(
    ("loss", "error", "message"),
    [
        (lambda total: {"loss": total}, ValueError, "not a dict with keys 'loss': return its 'loss'"),
        (lambda total: total.item(), ValueError, r"\(a float\): leave .item\(\) out"),
        (lambda total: None, ValueError, "not None"),
        (lambda total: [total, 3], ValueError, "not a list of 2"),
        (lambda total: (total, 1, {}, {}), ValueError, "not a tuple of 4"),
        (lambda total: (total.item(), 3), ValueError, r"\(a float\) as its sum: leave .item\(\) out"),
        (
            lambda total: (total, total.new_zeros(6, 5)),
            ValueError,
            r"a float32 tensor of shape \(6, 5\); it must be a nu",
        ),
        (lambda total: (total, None), TypeError, "the weight that loss_fn returned is None"),
        (lambda total: (total, "4"), TypeError, r"the weight that loss_fn returned is '4' \(a str\)"),
        (lambda total: (total, float("nan")), ValueError, "weight nan; it must be positive"),
        (lambda total: (total, float("inf")), ValueError, "weight inf; it must be positive"),
        (lambda total: (total, 1, [total]), TypeError, "further sums that loss_fn returned are a list of 1"),
        (
            lambda total: (total, 1, {"hits": 3}),
            TypeError,
            r"the further sum 'hits' that loss_fn returned is 3 \(a int\)",
        ),
        (lambda total: total.detach(), ValueError, "has no gradient: it was detached"),
        (lambda total: total.long(), ValueError, "not a int64 tensor of shape"),
    ],
)
def test_a_loss_that_cannot_be_taken_is_named(
    network: Network, loss: Any, error: type[Exception], message: str
) -> None:
    def loss_fn(model: nn.Module, batch: Any) -> Any:
        return loss(mean_loss(model, batch))

    with pytest.raises(error, match=message):
        seqba.merged_gradient(network, make_batch(), loss_fn, copies=2)


@pytest.mark.parametrize("name", ["copies", "update", "seed", "micro_batch"])
@pytest.mark.parametrize("value", [1.5, 2.0, "4", None, True, torch.tensor([1, 2]), torch.tensor(1.0)])
def test_a_number_that_is_none_is_named(network: Network, name: str, value: Any) -> None:
    with pytest.raises(TypeError, match=f"{name} must be a whole number, not "):
        seqba.merged_gradient(network, make_batch(), mean_loss, **{"copies": 2, name: value})


def test_whole_numbers_of_any_library_are_taken(network: Network) -> None:
    seqba.merged_gradient(network, make_batch(), mean_loss, copies=2, plan="looped", update=3)
    expected = gradient_of(network)
    network.zero_grad()
    seqba.merged_gradient(network, make_batch(), mean_loss, copies=np.int64(2), plan="looped", update=torch.tensor(3))
    assert torch.equal(gradient_of(network), expected)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"model": len}, "model must be a torch.nn.Module, not"),
        ({"loss_fn": nn.functional.cross_entropy(torch.zeros(1, 2), torch.tensor([0]))}, "loss_fn must be a function"),
        ({"ranks": 2}, r"ranks must be a seqba.Ranks \(Ranks.of\(\)\), not 2 \(a int\)"),
    ],
)
def test_other_arguments_are_named(network: Network, given: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        seqba.merged_gradient(**{"model": network, "batch": make_batch(), "loss_fn": mean_loss, "copies": 2, **given})


@pytest.mark.parametrize("given", [{"x": torch.ones(2, 7)}, (batch for batch in [make_batch()])])
def test_micro_batches_that_are_no_list_are_named(network: Network, given: Any) -> None:
    with pytest.raises(TypeError, match="micro_batches must be a list of batches, not"):
        seqba.grid_gradient(network, given, summed_loss, copies=2, weight=12)


class Equal(Network):
    """Says what it is equal to, in its own way."""

    def __eq__(self, other: object) -> Any:
        return torch.ones(3, 3) == 1

    def __hash__(self) -> int:
        return 7


def lazy() -> nn.Module:
    return nn.Sequential(nn.LazyLinear(8), nn.ReLU(), seqba.nn.Dropout(0.3), nn.LazyLinear(5))


class Complex(nn.Module):
    """Complex weights, of which the magnitude of the output counts."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout = seqba.nn.Dropout(0.3)
        self.enter = nn.Parameter(torch.randn(7, 5, dtype=torch.complex64))

    def forward(self, x: Tensor) -> Tensor:
        return (self.dropout(x).to(torch.complex64) @ self.enter).abs()


@pytest.mark.parametrize("make", [Equal, lazy, Complex])
@pytest.mark.filterwarnings("ignore:Lazy modules are a new feature")
def test_unusual_models_train(make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    model = make()
    batch = make_batch()
    first = seqba.merged_gradient(model, batch, mean_loss, copies=3, update=0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for update in range(1, 20):
        optimizer.step()
        optimizer.zero_grad()
        last = seqba.merged_gradient(model, batch, mean_loss, copies=3, update=update)
    assert last.loss < first.loss
    gradients = []
    for plan in ("stacked", "looped"):
        model.zero_grad()
        seqba.merged_gradient(model, batch, mean_loss, copies=3, plan=plan, update=30)
        gradients.append(torch.view_as_real(gradient_of(model)) if make is Complex else gradient_of(model))
    assert relative_error(*gradients) < 1e-5


def complex_on_ranks(ranks: Ranks | None) -> dict[str, Any]:
    torch.manual_seed(0)
    model = Complex()
    seqba.merged_gradient(model, make_batch(), mean_loss, copies=4, update=30, ranks=ranks)
    return {"gradient": gradient_of(model)}


@pytest.mark.slow
def test_complex_gradients_are_added_up_over_ranks(tmp_path: Path) -> None:
    expected = torch.view_as_real(complex_on_ranks(None)["gradient"])
    for result in run_groups(complex_on_ranks, [2], tmp_path).values():
        assert relative_error(torch.view_as_real(result["gradient"]), expected) < 1e-5
