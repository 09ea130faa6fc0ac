"""Cells spread over ranks: the same gradient for any number of them, with real processes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from spread_world import COPIES, SHARDS, SIZES, accumulate, run_all, train

from seqba.core import Ranks


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[int, int], dict[str, Any]]:
    folder = tmp_path_factory.mktemp("ranks")
    run_all(folder)
    return {
        (size, rank): torch.load(folder / f"{size}-{rank}.pt", weights_only=True)
        for size in SIZES
        for rank in range(size)
    }


Results = dict[tuple[int, int], dict[str, Any]]


@pytest.mark.slow
@pytest.mark.parametrize("plan", ["train", "stacked"])
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
def test_a_rank_reads_only_what_its_cells_need(results: Results) -> None:
    read = {size: [results[size, rank]["train"]["asked"][0] for rank in range(size)] for size in SIZES}
    # Six cells, three of each shard.
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


@pytest.mark.parametrize("shards", [1, 2, 5])
@pytest.mark.parametrize("copies", [1, 3, 4])
def test_cells_are_dealt_whole_and_evenly(shards: int, copies: int) -> None:
    everything = [(shard, copy) for shard in range(shards) for copy in range(copies)]
    for size in range(1, shards * copies + 1):
        dealt = [
            [(shard, copy) for shard, own in Ranks(rank, size).cells(shards, copies) for copy in own]
            for rank in range(size)
        ]
        assert [cell for own in dealt for cell in own] == everything
        assert max(map(len, dealt)) - min(map(len, dealt)) <= 1


def test_more_ranks_than_cells_are_refused() -> None:
    with pytest.raises(ValueError, match="7 ranks for 2 shards × 3 copies = 6 cells: take at most 6 ranks"):
        Ranks(0, 7).cells(SHARDS, COPIES)
