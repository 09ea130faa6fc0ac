"""Copies that begin inside a model: the same promises, with rows computed once below the fork."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from forked_network import ForkedNetwork, forked_gradient, forked_loss
from forked_networks import PLANS, batch_of, make_network
from small_network import gradient_of, relative_error, summed_loss
from torch import Tensor, nn

import seqba
from seqba.core import Noise, Plan, noise_context
from seqba.noise.sites import ALL_COPIES


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("way", ["function", "value"])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_the_gradient_does_not_depend_on_the_plan(way: str, plan: Any, dtype: torch.dtype, bound: float) -> None:
    stacked = forked_gradient(make_network(dtype=dtype), batch_of(dtype), plan="stacked")
    assert stacked.norm() > 0
    assert (
        relative_error(forked_gradient(make_network(way=way, dtype=dtype), batch_of(dtype), plan=plan), stacked) < bound
    )


@pytest.mark.parametrize("plan", ["stacked", "looped"])
def test_it_is_the_mean_over_copies_above_one_view_below(plan: Any) -> None:
    model, (x, target) = make_network(), batch_of()
    model.both_dropout.p = 0.0
    names = {id(module): name for name, module in model.named_modules()}
    for copy in range(4):
        with noise_context(Noise(0, 3, 0, (ALL_COPIES,), names)):
            hidden, is_positive = model.below(x)
        with noise_context(Noise(0, 3, 0, (copy,), names)):
            logits = model.above(hidden * 1.5, is_positive)
        (nn.functional.cross_entropy(logits, target) / 4).backward()
    by_hand = gradient_of(model).clone()
    assert relative_error(forked_gradient(model, (x, target), copies=4, plan=plan), by_hand) < 1e-12


@pytest.mark.parametrize("plan", ["stacked", *PLANS])
def test_what_a_pass_changes_in_place_no_other_pass_sees(plan: Any) -> None:
    """Targets that a loss scales where they lie, before the fork or above it, where a pass may have one copy alone."""
    x, target = batch_of()
    batch = {"x": x, "weights": torch.ones(len(x), dtype=x.dtype)}

    def careless(model: nn.Module, batch: Any) -> tuple[Tensor, int]:
        before = batch["weights"].mul_(2)
        logits = model(batch["x"])
        weights = seqba.per_copy(batch["weights"])
        before.zero_()
        losses = nn.functional.cross_entropy(logits, seqba.per_copy(target), reduction="none")
        return (losses * weights).sum(), len(losses)

    model = make_network()
    seqba.merged_gradient(model, batch, careless, copies=4, update=3, plan=plan, forked=True)
    expected = 2 * forked_gradient(make_network(), (x, target), copies=4, plan="stacked")
    assert relative_error(gradient_of(model), expected) < 1e-12
    assert torch.equal(batch["weights"], torch.ones(len(x), dtype=x.dtype))


@pytest.mark.parametrize(("way", "plan", "times"), [("function", "looped", 1), ("function", 2, 1), ("value", 2, 3)])
def test_what_is_below_is_computed_once_where_it_is_a_function(way: str, plan: Any, times: int) -> None:
    model = make_network(way=way)
    forked_gradient(model, batch_of(), plan=plan)
    assert model.times_below == times


def test_parameters_may_all_be_below_and_the_backward_the_callers() -> None:
    class Below(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.dropout = nn.Linear(7, 5), seqba.nn.Dropout(0.5)

        def forward(self, x: Tensor) -> Tensor:
            return self.dropout(seqba.fork(self.layer, x))

    model = Below().double()
    expected = forked_gradient(model, batch_of(), plan="stacked")
    backward = torch.Tensor.backward
    assert relative_error(forked_gradient(model, batch_of(), plan="looped", backward=backward), expected) < 1e-12


@pytest.mark.filterwarnings("ignore:nothing drew noise")
@pytest.mark.parametrize("copies", [1, 2, 5])
@pytest.mark.parametrize("plan", ["stacked", "looped"])
def test_without_dropout_a_fork_changes_nothing(copies: int, plan: Any) -> None:
    model = make_network(0.0)
    forked = forked_gradient(model, batch_of(), copies=copies, plan=plan)
    model.zero_grad()
    logits = model(batch_of()[0])
    nn.functional.cross_entropy(logits, batch_of()[1]).backward()
    assert relative_error(forked, gradient_of(model)) < 1e-12


def test_one_copy_that_forks_has_the_noise_of_all_copies_below_and_its_own_above() -> None:
    model = make_network()
    one = forked_gradient(model, batch_of(), copies=1)
    assert relative_error(one, forked_gradient(model, batch_of(), copies=5)) > 1e-2
    assert torch.equal(one, forked_gradient(model, batch_of(), copies=1, plan="looped"))


def test_the_mean_over_many_updates_is_that_of_whole_copies() -> None:
    forking, whole, updates = make_network(), make_network(way="none"), 250
    sums: dict[str, list[Tensor]] = {"forked": [], "whole": []}
    for update in range(updates):
        sums["forked"].append(forked_gradient(forking, batch_of(), copies=3, update=update, plan="stacked"))
        whole.zero_grad()
        seqba.merged_gradient(
            _Scaled(whole), batch_of(), summed_loss, copies=3, update=update + updates, plan="stacked"
        )
        sums["whole"].append(gradient_of(whole))
    means = {name: torch.stack(found).mean(0) for name, found in sums.items()}
    variances = {name: torch.stack(found).var(0) for name, found in sums.items()}
    error = (sum(variances.values()) / updates).sqrt()
    normal = ((means["forked"] - means["whole"]) / error).square()
    # The mean of as many squares of standard normal numbers as there are parameters, which lean on each other.
    assert 0.6 < float(normal.nanmean()) < 1.6
    # Noise below the fork isn't averaged over the copies.
    assert float(variances["forked"].sum() / variances["whole"].sum()) > 1.2


class _Scaled(nn.Module):
    """The network without a fork, with what it does between its parts."""

    def __init__(self, network: ForkedNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        hidden, is_positive = self.network.below(x)
        return self.network.above(hidden * 1.5, is_positive)


@pytest.mark.filterwarnings("ignore:nothing drew noise")
def test_draws_that_rows_share_are_told_from_the_rows_on_either_side() -> None:
    seen: list[int | None] = []

    class Asking(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))

        def forward(self, x: Tensor) -> tuple[Tensor, int]:
            noise = seqba.current_noise()
            assert noise is not None
            seen.append(noise.rows)
            x = seqba.fork(x * self.weight)
            seen.append(noise.rows)
            return x.sum(), len(x)

    seqba.merged_gradient(
        Asking(), torch.ones(6, 1), lambda model, x: model(x), copies=3, keyed=True, forked=True, plan="stacked"
    )
    assert seen == [6, 18]


@pytest.mark.filterwarnings("ignore:nothing drew noise")
def test_a_tensor_that_the_last_copy_does_not_use_keeps_the_gradients_of_the_others() -> None:
    class Choosy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.tensor([2.0, 3.0]))

        def forward(self, x: Tensor) -> Tensor:
            first, second = seqba.fork(lambda: (x * self.weight[0], x * self.weight[1]))
            noise = seqba.current_noise()
            assert noise is not None
            return first + second if noise.copies[0] == 0 else first

    model = Choosy()
    for pass_ in seqba.copies(model, 2, update=1, forked=True):
        with pass_:
            model(torch.ones(3, 1)).sum().backward()
    assert model.weight.grad is not None
    assert model.weight.grad.tolist() == [6.0, 3.0]


def test_what_auto_measures_are_the_bytes_above_with_those_below_taken_once(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Plan(is_auto=True)
    told: list[tuple[int, int]] = []
    measured = Plan.measured

    def note(self: Plan, bytes_per_copy: int, device: torch.device, *, shared_bytes: int = 0) -> None:
        told.append((bytes_per_copy, shared_bytes))
        measured(self, bytes_per_copy, device, shared_bytes=shared_bytes)

    monkeypatch.setattr(Plan, "measured", note)
    monkeypatch.setattr("seqba.runtime.activations.CPU_PASS_BYTES", 8000)
    forked_gradient(make_network(), batch_of(), plan=plan)
    ((above, below),) = told
    assert below > 6 * 16 * 8  # the tanh of 6 rows
    assert above > 6 * 16 * 8
    assert plan.copies_per_pass == (8000 - below) // above


def test_outside_an_update_a_fork_is_not_there() -> None:
    model, (x, target) = make_network(), batch_of()
    assert torch.equal(seqba.fork(x), x)
    assert seqba.per_copy(target) is target
    model.eval()
    assert model(x).shape == (6, 5)


def test_whole_copies_leave_targets_as_they_are() -> None:
    model, seen = make_network(way="none"), []

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, int]:
        seen.append(len(seqba.per_copy(batch[1])))
        return summed_loss(model, batch)

    seqba.merged_gradient(model, batch_of(), loss, copies=2, plan="stacked")
    assert seen == [12]


def test_misuse_is_one_line_that_says_what_to_do() -> None:
    model, batch = make_network(), batch_of()
    with pytest.raises(
        RuntimeError, match=r"^seqba.fork was called in an update .* pass forked=True to what makes the update"
    ):
        seqba.merged_gradient(model, batch, forked_loss, copies=2)
    with pytest.raises(RuntimeError, match=r"^forked=True, but neither the model nor the loss called seqba.fork"):
        seqba.merged_gradient(make_network(way="none"), batch, summed_loss, copies=2, forked=True)
    first = next(seqba.copies(make_network(way="none"), 2, update=0, forked=True))
    with pytest.raises(RuntimeError, match=r"^forked=True, but neither"), first:
        pass
    with pytest.raises(ValueError, match=r"^a replicated batch has copies from the beginning"):
        seqba.merged_gradient(model, batch, forked_loss, copies=2, forked=True, replicated=True)
    with pytest.raises(TypeError, match=r"^seqba.fork takes inputs beside a function, not beside a Tensor"):
        seqba.fork(batch[0], batch[1])
    twice = lambda model, batch: (seqba.fork(model(batch[0])).sum(), 6)  # noqa: E731
    with pytest.raises(RuntimeError, match=r"^seqba.fork was called twice in a pass"):
        seqba.merged_gradient(model, batch, twice, copies=2, forked=True)
    early = lambda model, batch: (seqba.per_copy(batch[0]).sum(), 6)  # noqa: E731
    with pytest.raises(RuntimeError, match=r"^seqba.per_copy was called below the fork"):
        seqba.merged_gradient(model, batch, early, copies=2, forked=True)
    with pytest.raises(TypeError, match=r"^the value of seqba.fork is an? object"):
        seqba.merged_gradient(model, batch, lambda *_: seqba.fork(object()), copies=2, forked=True, plan="stacked")
