"""Batches of an epoch, update by update, from their files to the core."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar

import torch

from seqba.core import ALONE, Group
from seqba.distributed.batch_broadcast import BatchBroadcast
from seqba.errors import UserError
from seqba.rows.replicate import select_copies
from seqba.runtime.devices import to_device
from seqba.tasks import CopiedMicroBatches, MicroBatches, Task
from seqba.training.arms import GridShape

Batch = TypeVar("Batch")


class OwnSums(NamedTuple):
    """Sums over an update's cells in this process; those of all ranks add up to the grid's.

    Attributes:
        weight: what the loss is divided by.
        unique: target tokens or images, of those micro-batches whose first copy is here: each counts on one rank.
        processed: target tokens or images of all copies that are here.
    """

    weight: float
    unique: int
    processed: int


@dataclass(frozen=True)
class UpdateBatch(Sequence[Batch]):
    """Micro-batches of an update, of which this process has loaded those that have cells here.

    Attributes:
        size: S, the number of micro-batches on all ranks.
        copies: M.
        cells: of this process: for each of its micro-batches, in order, which copies.
        loaded: number of a micro-batch → its batch, on the CPU.
        device: where a micro-batch goes when it is asked for; None to leave it.
        copied: whether batches hold the rows of all M copies, copy-major, each copy its own; otherwise they hold rows
            that all copies see.
        sent: micro-batches that are on their way to a GPU already, an update ahead.
    """

    size: int
    copies: int
    cells: Sequence[tuple[int, range]]
    loaded: Mapping[int, Batch]
    device: torch.device | None = None
    copied: bool = False
    sent: Mapping[int, Batch] = field(default_factory=dict)

    @classmethod
    def of(
        cls, micro_batches: Sequence[Batch], copies: int, ranks: Group = ALONE, device: torch.device | None = None
    ) -> UpdateBatch[Batch]:
        """Batch of an update whose micro-batches are all at hand."""
        cells = ranks.cells(len(micro_batches), copies)
        return cls(len(micro_batches), copies, cells, {number: micro_batches[number] for number, _ in cells}, device)

    def __len__(self) -> int:
        """Number of micro-batches on all ranks."""
        return self.size

    def __getitem__(self, number: Any) -> Any:
        """Micro-batch `number` of the update, one of this process's, on the device."""
        if number in self.sent:
            return self.sent[number]
        batch = self.loaded[number]
        return batch if self.device is None else to_device(batch, self.device)

    @property
    def first(self) -> Batch:
        """One of this process's micro-batches, on the CPU."""
        return next(iter(self.loaded.values()))

    def sums(self, task: Task[Batch]) -> OwnSums:
        """Weight, target tokens or images of this process's cells."""
        weight, unique, processed = 0.0, 0, 0
        for number, copies in self.cells:
            parts = self._parts(number, copies)
            times = 1 if self.copied else len(copies)
            counts = [task.count(rows) for rows in parts]
            weight += times * sum(task.weight(rows) for rows in parts)
            processed += times * sum(counts)
            if 0 in copies:
                unique += counts[0]
        return OwnSums(weight, unique, processed)

    def _parts(self, number: int, copies: range) -> list[Batch]:
        """Rows of each of these copies of a micro-batch; of one alone, where all have the same."""
        batch = self.loaded[number]
        if not self.copied:
            return [batch]
        return [select_copies(batch, range(copy, copy + 1), self.copies) for copy in copies]


@dataclass(frozen=True)
class EpochUpdates(Generic[Batch]):
    """Updates of an epoch: S consecutive micro-batches each; the last one may have fewer.

    Attributes:
        micro_batches: those of the epoch.
        grid: S of the epoch, and M of each update.
        epoch: its 1-based number.
        ranks: the processes among which the cells of an update are dealt.
        broadcast: reads for several ranks that have copies of one micro-batch; None where each reads for itself.
        device: where a micro-batch goes when it is asked for; None to leave it.
    """

    micro_batches: MicroBatches[Batch]
    grid: GridShape
    epoch: int
    ranks: Group = ALONE
    broadcast: BatchBroadcast | None = None
    device: torch.device | None = None

    @functools.cached_property
    def size(self) -> int:
        """S: the last update may have fewer."""
        return self.grid.micro_batches(self.epoch)

    def __len__(self) -> int:
        """Number of updates."""
        return -(-len(self.micro_batches) // self.size)

    def read(self, number: int, *, update: int) -> UpdateBatch[Batch] | UserError | None:
        """Batch of an update, or the error that says why it can't be read; None after the epoch's last one.

        It is read before the update that precedes it, whose message takes along whether it could be: so all ranks know
        in time that one can't go on, and it costs no message.

        Args:
            number: of the update in the epoch, from 0.
            update: its 1-based number in the run, which says how many copies it has; updates that were skipped count,
                as their data are gone.
        """
        first, total = number * self.size, len(self.micro_batches)
        if first >= total:
            return None
        size, copies = min(self.size, total - first), self.grid.copies.at(update)
        cells = self.ranks.cells(size, copies)
        is_copied = isinstance(self.micro_batches, CopiedMicroBatches)
        try:
            loaded = self._load(first, size, cells, copies)
            return UpdateBatch(size, copies, cells, loaded, self.device, is_copied, self._sent(loaded))
        except UserError as error:
            return error

    def _sent(self, loaded: Mapping[int, Batch]) -> Mapping[int, Batch]:
        """The batches on their way to a GPU, which computes the update before meanwhile."""
        if self.device is None or self.device.type != "cuda":
            return {}
        return {number: to_device(batch, self.device) for number, batch in loaded.items()}

    def _load(self, first: int, size: int, cells: Sequence[tuple[int, range]], copies: int) -> Mapping[int, Batch]:
        if self.broadcast is not None:
            return self.broadcast.load(size, copies, lambda number: self._read(first + number, copies))
        return {number: self._read(first + number, copies) for number, _ in cells}

    def _read(self, number: int, copies: int) -> Batch:
        if isinstance(self.micro_batches, CopiedMicroBatches):
            copied: Batch = self.micro_batches.copied(number, copies)
            return copied
        return self.micro_batches[number]


def count_updates(task: Task[Any], epoch: int, micro_batches: int) -> int:
    """Number of updates of the 1-based `epoch` at `micro_batches` to an update."""
    return -(-len(task.epoch(epoch, micro_batches)) // micro_batches)


def check_epochs(task: Task[Any], micro_batches_per_epoch: Sequence[int]) -> None:
    """Checks that every epoch of running text can be cut into its number of micro-batches.

    Args:
        task: whose epochs are made; only those of a task that carries a state from update to update depend on S.
        micro_batches_per_epoch: S for epoch 1, 2, …; the last one stays.

    Raises:
        UserError: for a text that is too short for an S.
    """
    if task.carried is not None:
        for epoch, micro_batches in enumerate(micro_batches_per_epoch, start=1):
            task.epoch(epoch, micro_batches)
