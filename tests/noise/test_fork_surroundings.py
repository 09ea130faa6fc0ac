"""Forks beside checkpointed layers, ordinary noise, loops of passes, batch norms, carried states and ranks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fork_world
import pytest
import torch
from forked_network import forked_gradient, forked_loss
from forked_networks import PLANS, batch_of, make_network
from rank_groups import run_groups
from small_network import gradient_of, relative_error
from torch import Tensor, nn
from torch_versions import SHARDS_PARAMETERS

import seqba


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
