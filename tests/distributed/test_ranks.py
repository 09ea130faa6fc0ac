"""Cells spread over ranks: the same gradient for any number of them, with real processes."""

from __future__ import annotations

import subprocess
from unittest.mock import patch

import pytest
import torch
from preloaded import preloaded
from rank_groups import Results, run_groups
from spread_world import COMPARISONS, COPIES, MICRO_BATCHES, SIZES, accumulate, compare, everything, train
from torch import Tensor, nn

from seqba.distributed import Ranks
from seqba.distributed.all_reduce import GradientExchange, Message

LEAVE = """
import torch
import torch.distributed as dist
from seqba.distributed.launch import leave_group

def begin_to_gather(numbers):
    dist.all_gather([torch.empty_like(numbers)], numbers, async_op=True)

dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
begin_to_gather(torch.ones(30_000_000))  # long enough to go on when the group is left
leave_group()
print("left")
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return run_groups(everything, SIZES, tmp_path_factory.mktemp("ranks"))


def test_a_group_is_left_whose_thread_still_has_tensors_that_python_has_forgotten() -> None:
    finished = subprocess.run(
        [preloaded().python, "-c", LEAVE], capture_output=True, text=True, check=False, timeout=120
    )
    assert (finished.stdout, finished.returncode) == ("left\n", 0), finished.stderr


@pytest.mark.slow
@pytest.mark.parametrize("plan", ["train", "stacked", "early"])
def test_weights_statistics_and_losses_are_those_of_one_process(results: Results, plan: str) -> None:
    alone = train(None, "looped")
    for (size, rank), result in results.items():
        for name, expected in alone["state"].items():
            torch.testing.assert_close(result[plan]["state"][name], expected, rtol=1e-10, atol=1e-12, msg=name)
        for step, expected in zip(result[plan]["steps"], alone["steps"], strict=True):
            assert step == pytest.approx(expected, rel=1e-10), (size, rank)


@pytest.mark.slow
def test_all_ranks_have_the_same_weights_to_the_last_bit(results: Results) -> None:
    for (size, _), result in results.items():
        for name, first in results[size, 0]["train"]["state"].items():
            assert torch.equal(result["train"]["state"][name], first), name


@pytest.mark.slow
def test_gradients_that_leave_early_add_up_to_the_last_bit_of_those_that_wait(results: Results) -> None:
    for result in results.values():
        for name, late in result["late"]["state"].items():
            assert torch.equal(result["early"]["state"][name], late), name


@pytest.mark.slow
def test_a_rank_reads_only_what_its_cells_need(results: Results) -> None:
    read = {size: [results[size, rank]["train"]["asked"][0] for rank in range(size)] for size in SIZES}
    # Six cells, three of each micro-batch.
    assert read == {1: [[0, 1]], 2: [[0], [1]], 3: [[0], [0, 1], [1]], 4: [[0], [0], [1], [1]]}


@pytest.mark.slow
def test_a_weight_that_no_cell_reaches_has_no_gradient(results: Results) -> None:
    assert all(result["train"]["never"] for result in results.values())
    for result in results.values():
        assert result["accumulate"]["never"] is None


@pytest.mark.slow
def test_gradients_from_before_are_added_up_once(results: Results) -> None:
    alone = accumulate(None)
    for result in results.values():
        for name, expected in alone.items():
            if expected is None:
                assert result["accumulate"][name] is None
            else:
                torch.testing.assert_close(result["accumulate"][name], expected, rtol=1e-10, atol=1e-12, msg=name)


@pytest.mark.slow
@pytest.mark.parametrize(("plan", "micro_batches"), COMPARISONS)
def test_copies_on_different_ranks_are_compared(results: Results, plan: str | int, micro_batches: int) -> None:
    """Ranks that have some copies of an example, all of them, or none at all."""
    alone = compare(None, "stacked", micro_batches)
    assert alone["metrics"][2] > 0.1
    for place, result in results.items():
        found = result["compared"][f"{micro_batches} {plan}"]
        assert found["metrics"] == pytest.approx(alone["metrics"], rel=1e-10), place
        for name, expected in alone["gradients"].items():
            torch.testing.assert_close(found["gradients"][name], expected, rtol=1e-10, atol=1e-12, msg=name)


@pytest.mark.slow
def test_copies_differ_by_ordinary_dropout_too_where_all_ranks_have_seeded_alike(results: Results) -> None:
    for size in SIZES:
        of_ranks = [results[size, rank]["ordinary"] for rank in range(size)]
        masks = [tuple(mask) for result in of_ranks for mask in result["masks"]]
        assert len(set(masks)) == len(masks) == 4
        assert all(result["untouched"] for result in of_ranks)


@pytest.mark.parametrize("micro_batches", [1, 2, 5])
@pytest.mark.parametrize("copies", [1, 3, 4])
def test_cells_are_dealt_whole_and_evenly(micro_batches: int, copies: int) -> None:
    everything = [(micro_batch, copy) for micro_batch in range(micro_batches) for copy in range(copies)]
    for size in range(1, micro_batches * copies + 1):
        dealt = [
            [(micro_batch, copy) for micro_batch, own in Ranks(rank, size).cells(micro_batches, copies) for copy in own]
            for rank in range(size)
        ]
        assert [cell for own in dealt for cell in own] == everything
        assert max(map(len, dealt)) - min(map(len, dealt)) <= 1


@pytest.mark.parametrize("table", [nn.Embedding, nn.EmbeddingBag])
def test_sparse_gradients_are_refused(table: type[nn.Embedding]) -> None:
    ranks = Ranks(0, 2)
    ranks.check_model(nn.Sequential(table(5, 3), nn.Linear(3, 2)))
    ranks.check_model(table(5, 3, sparse=True).requires_grad_(False))
    with pytest.raises(ValueError, match=rf"{table.__name__}\(sparse=True\) has a sparse gradient"):
        ranks.check_model(nn.Sequential(table(5, 3, sparse=True), nn.Linear(3, 2)))


def test_more_ranks_than_cells_are_refused() -> None:
    with pytest.raises(ValueError, match="7 ranks for 2 micro-batches × 3 copies = 6 cells: take at most 6 ranks"):
        Ranks(0, 7).check(MICRO_BATCHES, COPIES)


@pytest.mark.parametrize(("micro_batches", "copies", "size"), [(2, 3, 4), (1, 4, 3), (5, 1, 2), (3, 4, 12)])
def test_the_holders_of_a_micro_batch_are_the_ranks_with_a_cell_of_it(
    micro_batches: int, copies: int, size: int
) -> None:
    of_ranks = [
        {micro_batch for micro_batch, _ in Ranks(rank, size).cells(micro_batches, copies)} for rank in range(size)
    ]
    holders = Ranks(0, size).holders(micro_batches, copies)
    assert [list(ranks) for ranks in holders] == [
        [rank for rank in range(size) if micro_batch in of_ranks[rank]] for micro_batch in range(micro_batches)
    ]


class Post(Ranks):
    """Ranks that only note what is sent, and when."""

    def __init__(self, log: list[str]) -> None:
        super().__init__(0, 2, overlap=True)
        self.__dict__["log"] = log

    def send(self, tensors: list[Tensor]) -> Message:
        """Notes the sum of the only tensor."""
        (tensor,) = tensors
        self.__dict__["log"].append(f"sent {float(tensor.sum()):g}")
        return Message(tensors, tensor.flatten(), None)


def exchange_of_three(log: list[str]) -> tuple[list[Tensor], GradientExchange]:
    weights = [torch.ones(4, requires_grad=True) for _ in range(3)]
    with patch("seqba.distributed.all_reduce.BUCKET_BYTES", 16):
        return weights, GradientExchange(Post(log), weights)


def chain(weights: list[Tensor], log: list[str]) -> Tensor:
    """Multiplies one weight after the other; gradients come in the reverse order, and the log shows between which."""
    x = torch.ones(4)
    for number, weight in enumerate(weights):
        x = x * weight * (number + 1)
        x.register_hook(lambda _, number=number: log.append(f"backward of {number}"))
    return x.sum()


def test_a_gradient_leaves_while_the_backward_goes_on_below_it() -> None:
    log: list[str] = []
    weights, exchange = exchange_of_three(log)
    with exchange.last_backward():
        chain(weights, log).backward()
    assert log.index("sent 24") < log.index("backward of 0")
    assert [line for line in log if line.startswith("sent")] == ["sent 24"] * 3
    exchange.add_up()
    assert len([line for line in log if line.startswith("sent")]) == 3
    assert not any(weight._post_accumulate_grad_hooks for weight in weights)


def test_messages_leave_in_one_order_also_where_a_gradient_is_missing() -> None:
    log: list[str] = []
    weights, exchange = exchange_of_three(log)
    with exchange.last_backward():
        chain(weights[:2], []).backward()  # not the last weight, whose message goes first
    assert not exchange.has_begun
    exchange.add_up()
    assert log == ["sent 0", "sent 8", "sent 8"]


def test_a_backward_that_is_tried_again_sends_whole_gradients() -> None:
    log: list[str] = []
    weights, exchange = exchange_of_three(log)
    loss = chain(weights[:2], []) + 0 * weights[2].sum()
    with exchange.last_backward():
        chain(weights[:2], []).backward()  # as far as the memory went
    for weight in weights:
        weight.grad = None
    with exchange.last_backward():
        loss.backward()
    assert [line for line in log if line.startswith("sent")] == ["sent 0", "sent 8", "sent 8"]


def test_a_gradient_that_comes_in_parts_is_refused_once_it_has_left() -> None:
    weights, exchange = exchange_of_three([])
    with exchange.last_backward():
        weights[2].sum().backward()
        with pytest.raises(RuntimeError, match="came in parts"):
            weights[2].sum().backward()
