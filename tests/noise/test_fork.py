"""Copies that begin inside a model: the same promises, with rows computed once below the fork."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fork_world
import pytest
import torch
from forked_network import ForkedNetwork, forked_gradient, forked_loss
from rank_groups import run_groups
from small_network import gradient_of, make_batch, relative_error, summed_loss
from torch import Tensor, nn
from torch_versions import SHARDS_PARAMETERS

import seqba
from seqba.core import Noise, Plan, noise_context
from seqba.noise.sites import ALL_COPIES

PLANS: list[Any] = ["looped", "auto", 2, 3, 4]


def make_network(*args: Any, dtype: torch.dtype = torch.float64, **options: Any) -> ForkedNetwork:
    torch.manual_seed(1)
    return ForkedNetwork(*args, **options).to(dtype)


def batch_of(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    return make_batch(dtype=dtype)


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


@pytest.mark.parametrize("plan", ["stacked", *PLANS])
def test_checkpointed_layers_below_and_above_draw_again_what_they_drew(plan: Any) -> None:
    expected = forked_gradient(make_network(), batch_of(), plan="stacked")
    model = make_network(checkpoints=True)
    assert relative_error(forked_gradient(model, batch_of(), plan=plan), expected) < 1e-12


def test_a_fork_that_is_recomputed_is_refused() -> None:
    model = make_network()

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, int]:
        logits = torch.utils.checkpoint.checkpoint(model, batch[0], use_reentrant=False)
        target = seqba.per_copy(batch[1])
        return nn.functional.cross_entropy(logits, target, reduction="sum"), len(target)

    with pytest.raises(RuntimeError, match="checkpoint what is below it and what is above it apart"):
        seqba.merged_gradient(model, batch_of(), loss, copies=2, forked=True, plan="stacked")
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("plan", ["looped", 2])
def test_a_model_of_ordinary_dropout_is_keyed_on_both_sides(plan: Any) -> None:
    model = make_network(ordinary=True)
    stacked = forked_gradient(model, batch_of(), keyed=True, plan="stacked")
    assert relative_error(forked_gradient(model, batch_of(), keyed=True, plan=plan), stacked) < 1e-12
    # The masks are those of keyed modules in the same places.
    assert relative_error(stacked, forked_gradient(make_network(), batch_of(), plan="stacked")) < 1e-12


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


def test_passes_of_a_loop_that_computes_its_own_losses_fork_too() -> None:
    model, batch = make_network(), batch_of()
    expected = forked_gradient(model, batch, copies=4)
    model.zero_grad()
    for pass_ in seqba.copies(model, 4, update=3, forked=True):
        with pass_:
            loss, rows = forked_loss(model, batch)
            (loss / rows / 4).backward()
    assert relative_error(gradient_of(model), expected) < 1e-12
    assert [model.times_below] == [2]  # once in each of the updates


@pytest.mark.filterwarnings("ignore:nothing drew noise")
def test_ordinary_noise_above_differs_from_copy_to_copy_in_a_loop_of_passes() -> None:
    """What no key reaches is seeded by the pass: below alike in all of them, above by the copy."""
    drawn: list[tuple[float, float]] = []

    class Drawing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))

        def forward(self, x: Tensor) -> Tensor:
            below = _state_of_torch()
            x = seqba.fork(x * self.weight)
            drawn.append((below, _state_of_torch()))
            return x

    model = Drawing()
    for pass_ in seqba.copies(model, 3, update=1, forked=True):
        with pass_:
            model(torch.ones(2, 1)).sum().backward()
    below, above = zip(*drawn, strict=True)
    assert len(set(below)) == 1
    assert len(set(above)) == 3


def _state_of_torch() -> float:
    return float(torch.random.get_rng_state().double().sum())


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


def test_batch_norm_below_and_above_does_not_depend_on_the_plan() -> None:
    class Normalised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.below, self.above = (seqba.nn.GhostBatchNorm2d(3, ghost_batch=2) for _ in range(2))
            self.dropout = seqba.nn.Dropout(0.4)
            self.way = "function"

        def forward(self, x: Tensor) -> Tensor:
            value = self.below(self.dropout(x)) if self.way == "value" else None
            x = seqba.fork(value) if value is not None else seqba.fork(lambda: self.below(self.dropout(x)))
            return self.above(self.dropout(x)).square()

    def run(plan: Any, way: str) -> tuple[Tensor, list[Tensor]]:
        torch.manual_seed(2)
        model = Normalised().double()
        model.way = way
        generator = torch.Generator().manual_seed(3)
        micro_batches = [torch.randn(4, 3, 2, 2, generator=generator, dtype=torch.float64) for _ in range(2)]

        def loss(model: nn.Module, x: Tensor) -> tuple[Tensor, int]:
            rows = model(x)
            return (rows * torch.arange(rows[0].numel()).view_as(rows[0])).sum(), len(rows)

        seqba.grid_gradient(model, micro_batches, loss, copies=3, weight=24, plan=plan, update=1, forked=True)
        return gradient_of(model), [buffer for name, buffer in model.named_buffers() if "running" in name]

    expected, statistics = run("stacked", "function")
    for plan, way in (("looped", "function"), (2, "value")):
        gradient, buffers = run(plan, way)
        assert relative_error(gradient, expected) < 1e-12
        for one, other in zip(buffers, statistics, strict=True):
            assert torch.allclose(one, other, rtol=1e-12)


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


def test_a_carried_state_is_each_copys_own_above_and_the_same_for_all_below() -> None:
    class Walk(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.eye(4, dtype=torch.float64) * 0.8)
            self.dropout = seqba.nn.Dropout(0.5)

        def forward(self, x: Tensor, below: Tensor, above: Tensor) -> tuple[Tensor, Tensor]:
            lower = seqba.fork(lambda: torch.tanh(below[: len(x)] @ self.weight + self.dropout(x)))
            return lower, torch.tanh(above @ self.weight + self.dropout(lower))

    def train(plans: list[Any]) -> tuple[Tensor, list[list[Tensor]]]:
        model, carry = Walk(), seqba.Carry()
        generator = torch.Generator().manual_seed(4)

        def loss(model: nn.Module, x: Tensor) -> tuple[Tensor, float]:
            before = carry.read()
            copies = 3 if before is None else len(before[0]) // len(x)
            zeros = x.new_zeros(copies * len(x), 4)
            if before is None:
                noise = seqba.current_noise()
                assert noise is not None
                zeros = x.new_zeros(len(noise.pass_copies) * len(x), 4)
            state = model(x, *(before or (zeros, zeros)))
            carry.write(state)
            return state[1].square().sum(), float(len(state[1]))

        for update, plan in enumerate(plans):
            model.zero_grad()
            windows = [torch.randn(2, 4, generator=generator, dtype=torch.float64) for _ in range(2)]
            seqba.grid_gradient(model, windows, loss, copies=3, weight=12, plan=plan, update=update, forked=True)
            carry.commit()
        assert model.weight.grad is not None
        return model.weight.grad, carry.state_dict()["shards"]

    expected, states = train(["stacked"] * 3)
    for plans in (["looped"] * 3, [2, "looped", "stacked"]):
        gradient, others = train(plans)
        assert torch.allclose(gradient, expected, rtol=1e-12, atol=0)
        assert all(
            torch.allclose(a, b)
            for one, other in zip(states, others, strict=True)
            for a, b in zip(one, other, strict=True)
        )
    for below, above in states:
        assert torch.equal(below[:2], below[2:4])
        assert not torch.allclose(above[:2], above[2:4])


@pytest.mark.slow  # starts four processes
def test_ranks_that_share_copies_come_to_the_gradient_and_statistics_of_one_process(tmp_path: Path) -> None:
    expected, statistics = fork_world.grid(fork_world.make_network(), None, weight=36.0)
    results = run_groups(fork_world.on_processes, [1, 4], tmp_path)
    alone = results.pop((1, 0))
    for result in results.values():
        assert relative_error(result["gradient"], expected) < 1e-12
        assert relative_error(result["statistics"], statistics) < 1e-12
        assert relative_error(result["wrapped"], fork_world.mean_of_processes(4)) < 1e-12
        assert relative_error(result["ordinary"], alone["ordinary"]) < 1e-12
        assert [said.partition(" don't go with forked=True")[0] for said in result["refusals"]] == [
            "parameters in parts on several processes (FSDP)"
        ] * (2 if SHARDS_PARAMETERS else 1)
