"""What a cell carries from update to update: by micro-batch and copy, whatever passes the cells ran in."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import seqba
from seqba.core import Noise, noise_context

CPU = torch.device("cpu")


class Walk(nn.Module):
    """A state of B rows that goes on from window to window through keyed noise: s ← tanh(s·W + dropout(x))."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(4, dtype=torch.float64) * 0.8)
        self.dropout = seqba.nn.Dropout(0.5)

    def forward(self, x: Tensor, state: Tensor) -> Tensor:
        return torch.tanh(state @ self.weight + self.dropout(x))


def train(plans: list[object], *, micro_batches: int = 2, copies: int = 3) -> tuple[Tensor, seqba.Carry]:
    """The gradient of the last of several consecutive windows, one plan each, and the state after it."""
    model, carry = Walk(), seqba.Carry()
    generator = torch.Generator().manual_seed(4)

    def loss(model: nn.Module, x: Tensor) -> tuple[Tensor, float]:
        before = carry.read()
        state = model(x, torch.zeros_like(x) if before is None else before[0])
        carry.write([state])
        return state.square().sum(), float(len(x))

    for update, plan in enumerate(plans):
        model.zero_grad()
        windows = [torch.randn(2, 4, generator=generator, dtype=torch.float64) for _ in range(micro_batches)]
        seqba.grid_gradient(
            model, windows, loss, copies=copies, weight=copies * 2 * micro_batches, plan=plan, update=update
        )
        carry.commit()
    assert model.weight.grad is not None
    return model.weight.grad, carry


@pytest.mark.parametrize("plans", [["looped"] * 3, [2] * 3, ["stacked", "looped", 2], ["auto", 2, "looped"]])
def test_each_copy_goes_on_from_its_own_state_under_any_plan(plans: list[object]) -> None:
    expected, expected_carry = train(["stacked"] * 3)
    gradient, carry = train(plans)
    assert torch.allclose(gradient, expected, rtol=1e-12, atol=0)
    for one, other in zip(carry.state_dict()["shards"], expected_carry.state_dict()["shards"], strict=True):
        assert torch.allclose(one[0], other[0], rtol=1e-12, atol=0)


def test_the_states_of_copies_and_micro_batches_differ() -> None:
    states = train(["stacked"] * 2)[1].state_dict()["shards"]
    rows = torch.cat([tensors[0].view(3, -1) for tensors in states])  # one row for each cell
    assert len({tuple(row.tolist()) for row in rows}) == 6


def test_a_state_dict_is_copy_major_and_goes_on_under_another_plan() -> None:
    carry = seqba.Carry()
    for copies in ((1,), (0, 2)):  # passes in any order
        with noise_context(Noise(0, 0, 0, copies)):
            carry.write([torch.tensor([[10.0 * copy + row] for copy in copies for row in range(2)])])
    carry.commit()
    (tensors,) = carry.state_dict()["shards"]
    assert tensors[0].flatten().tolist() == [0, 1, 10, 11, 20, 21]
    other = seqba.Carry()
    other.load_state_dict(carry.state_dict(), copies=3, device=CPU)
    with noise_context(Noise(0, 1, 0, (1, 2))):
        state = other.read()
    assert state is not None
    assert state[0].flatten().tolist() == [10, 11, 20, 21]


def test_what_an_update_wrote_counts_from_commit_on() -> None:
    carry = seqba.Carry()
    with noise_context(Noise(0, 0, 0, (0,))):
        assert carry.read() is None
        carry.write([torch.ones(2, 1)])
        assert carry.read() is None
        carry.commit()
        carry.write([torch.zeros(2, 1)])
        carry.discard()
        carry.commit()
        state = carry.read()
    assert state is not None
    assert state[0].tolist() == [[1], [1]]


def test_a_text_that_begins_has_no_state_whatever_becomes_of_the_update() -> None:
    carry = seqba.Carry()
    with noise_context(Noise(0, 0, 0, (0, 1))):
        carry.write([torch.ones(4, 1)])
    carry.commit()
    with noise_context(Noise(0, 1, 0, (1,))):
        carry.forget()
        assert carry.read() is None
        carry.write([torch.ones(2, 1)])
    carry.discard()
    with noise_context(Noise(0, 2, 0, (1,))):
        assert carry.read() is None
    with noise_context(Noise(0, 2, 0, (0,))):
        assert carry.read() is not None
    carry.write([torch.ones(2, 1)])
    carry.forget()
    assert carry.read() is None


def test_loading_leaves_nothing_of_before() -> None:
    carry = seqba.Carry()
    with noise_context(Noise(0, 0, 5, (0,))):
        carry.write([torch.ones(2, 1)])
        carry.commit()
        carry.load_state_dict({"shards": []}, copies=1, device=CPU)
        assert carry.read() is None


def test_outside_an_update_there_is_a_state_of_its_own() -> None:
    carry = seqba.Carry()
    carry.write([torch.full((3, 1), 7.0)])
    with noise_context(Noise(0, 0, 0, (0,))):
        assert carry.read() is None
        carry.write([torch.zeros(2, 1)])
        carry.commit()
    outside = carry.read()
    assert outside is not None
    assert outside[0].flatten().tolist() == [7, 7, 7]


def test_a_state_keeps_neither_graph_nor_the_stacked_tensor() -> None:
    carry = seqba.Carry()
    with noise_context(Noise(0, 0, 0, (0, 1))):
        carry.write([torch.ones(4, 2, requires_grad=True) * 2])
        carry.commit()
    with noise_context(Noise(0, 0, 0, (1,))):
        state = carry.read()
    assert state is not None
    assert not state[0].requires_grad
    assert state[0].untyped_storage().nbytes() == 2 * 2 * 4


def test_copies_without_a_state_among_others_are_refused() -> None:
    carry = seqba.Carry()
    with noise_context(Noise(0, 0, 0, (0,))):
        carry.write([torch.ones(2, 1)])
    carry.commit()
    with noise_context(Noise(0, 0, 0, (0, 1))), pytest.raises(ValueError, match="only 1 of copies"):
        carry.read()


def test_rows_that_are_not_those_of_so_many_copies_are_refused() -> None:
    with pytest.raises(ValueError, match="micro-batch 0 isn't that of 2 copies"):
        seqba.Carry().load_state_dict({"shards": [[torch.ones(3, 1)]]}, copies=2, device=CPU)


class Alone(seqba.Ranks):
    """The only rank there is."""

    def gather(self, value: Any) -> list[Any]:
        return [value]


def test_states_forgotten_in_an_update_that_was_thrown_away_are_missing_on_ranks_too() -> None:
    carry = seqba.Carry()
    with noise_context(Noise(1, 1, 0, [0, 1])):
        carry.write([torch.ones(4, 2)])
    carry.commit()
    assert len(carry.state_dict(Alone(0, 1))["shards"]) == 1
    with noise_context(Noise(1, 2, 0, [0, 1])):
        carry.forget()
        carry.write([torch.ones(4, 2)])
    carry.discard()
    assert carry.state_dict(Alone(0, 1)) == carry.state_dict() == {"shards": []}


def test_micro_batches_that_are_not_numbered_from_nought_keep_their_numbers() -> None:
    """A process under DistributedDataParallel has every R-th micro-batch."""
    carry, model = seqba.Carry(), Walk()

    def loss(model: nn.Module, x: Tensor) -> Tensor:
        carry.write([x])
        return model(x, x).sum()

    for micro_batch in (1, 3):
        seqba.merged_gradient(
            model, torch.full((2, 4), float(micro_batch)).double(), loss, copies=2, micro_batch=micro_batch
        )
    carry.commit()
    state = carry.state_dict()
    assert state["numbers"] == [1, 3]
    other = seqba.Carry()
    other.load_state_dict(state, copies=2, device=CPU)
    with noise_context(Noise(0, 0, 3, (1,))):
        assert torch.equal(other.read()[0], torch.full((2, 4), 3.0).double())
    with noise_context(Noise(0, 0, 0, (1,))):
        assert other.read() is None
