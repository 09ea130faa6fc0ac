from __future__ import annotations

from typing import Any

import pytest
import torch
from sums import Rows, SquaresTask

from seqba.distributed import Ranks
from seqba.errors import UserError
from seqba.training.arms import GridShape
from seqba.training.batches import EpochUpdates, OwnSums, UpdateBatch, count_updates
from seqba.training.options.grid import CopySchedule


def test_updates_of_micro_batches() -> None:
    updates = EpochUpdates(list("abcdefg"), GridShape((3,)), 1)
    read = [updates.read(number, update=1) for number in range(len(updates) + 1)]
    assert read.pop() is None
    assert [len(batch) for batch in read] == [3, 3, 1]  # type: ignore[arg-type]
    for batch, expected in zip(read, ["abc", "def", "g"], strict=True):
        assert isinstance(batch, UpdateBatch)
        assert list(batch.loaded.values()) == [batch[place] for place in range(len(batch))] == list(expected)


def test_updates_are_counted_as_they_are_made() -> None:
    task = SquaresTask()
    for size in (1, 2, 3, 7, 8):
        assert count_updates(task, 1, size) == len(EpochUpdates(task.epoch(1, size), GridShape((size,)), 1))


def test_a_rank_reads_only_the_micro_batches_of_its_cells() -> None:
    class Reader(list[str]):
        read: list[int] = []  # noqa: RUF012

        def __getitem__(self, number: Any) -> Any:
            self.read.append(number)
            return super().__getitem__(number)

    micro_batches = Reader("abcdefg")
    batch = EpochUpdates(micro_batches, GridShape((3,)), 1, Ranks(2, 3)).read(1, update=2)
    assert isinstance(batch, UpdateBatch)
    assert (batch[2], len(batch), micro_batches.read) == ("f", 3, [5])


def test_what_cannot_be_read_is_given_back_as_its_error() -> None:
    class Broken(list[str]):
        def __getitem__(self, number: Any) -> Any:
            raise UserError("picture 5.png is broken")

    assert isinstance(EpochUpdates(Broken("ab"), GridShape((1,)), 1).read(0, update=1), UserError)


def test_each_rank_weighs_and_counts_its_cells_and_all_of_them_the_grid() -> None:
    task = SquaresTask()
    micro_batches = [task.batches[0], Rows(task.batches[1].values[:1], task.batches[1].target[:1])]
    whole = UpdateBatch.of(micro_batches, 3)
    assert whole.sums(task) == OwnSums(weight=15.0, unique=10, processed=30)
    parts = [UpdateBatch.of(micro_batches, 3, Ranks(rank, 4)) for rank in range(4)]
    assert [sum(sums) for sums in zip(*(part.sums(task) for part in parts), strict=True)] == [15.0, 10, 30]


def test_copies_with_rows_of_their_own_are_read_together_and_weighed_one_by_one() -> None:
    task = SquaresTask()

    class Copied(list[Rows]):
        def copied(self, number: int, copies: int) -> Rows:
            batch = self[number]
            values = [batch.values + copy for copy in range(copies)]
            return Rows(torch.cat(values), torch.cat([batch.target * (copy + 1) for copy in range(copies)]))

    class Weighed(SquaresTask):
        def weight(self, batch: Rows) -> float:
            return float(batch.target.sum())

    micro_batches = Copied(task.batches)
    grid = GridShape((2,), CopySchedule((3,)))
    whole = EpochUpdates(micro_batches, grid, 1).read(0, update=1)
    assert isinstance(whole, UpdateBatch)
    assert (whole.copied, whole.copies) == (True, 3)
    assert len(whole[0].values) == 3 * len(task.batches[0].values)
    plain = sum(float(batch.target.sum()) for batch in task.batches[:2])
    assert whole.sums(Weighed()).weight == pytest.approx((1 + 2 + 3) * plain)
    parts = [EpochUpdates(micro_batches, grid, 1, Ranks(rank, 4)).read(0, update=1) for rank in range(4)]
    sums = [part.sums(Weighed()).weight for part in parts if isinstance(part, UpdateBatch)]
    assert sum(sums) == pytest.approx(6 * plain)


def test_a_micro_batch_moves_when_it_is_asked_for() -> None:
    batch = UpdateBatch.of(SquaresTask().batches[:2], 1, device=torch.device("meta"))
    assert batch[1].values.device.type == "meta"
    assert batch.first.values.device.type == "cpu"
