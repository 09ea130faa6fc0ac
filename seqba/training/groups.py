"""The batches of an epoch, grouped by update."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from seqba.distributed.batch_broadcast import BatchBroadcast
from seqba.tasks import Shards, Task


@dataclass(frozen=True)
class Group(Sequence[Any]):
    """The shards of an update; those that this process needs are loaded before it begins."""

    shards: Shards[Any]
    numbers: range
    loaded: dict[int, Any] = field(default_factory=dict)

    def load(self, numbers: Iterable[int], through: BatchBroadcast | None) -> None:
        """Reads the shards of these numbers within the update, counting from 0, or has some of them sent."""
        if through is None:
            self.loaded.update({number: self._read(number) for number in numbers})
        else:
            self.loaded.update(through.load(len(self), self._read))

    def _read(self, number: int) -> Any:
        return self.shards[self.numbers[number]]

    def __len__(self) -> int:
        """Number of shards."""
        return len(self.numbers)

    def __getitem__(self, number: Any) -> Any:
        """Shard `number` of the update, which was loaded."""
        return self.loaded[number]


@dataclass(frozen=True)
class Groups:
    """The updates of an epoch: S consecutive shards each; the last one may have fewer."""

    shards: Shards[Any]
    size: int

    def __len__(self) -> int:
        """Number of updates."""
        return -(-len(self.shards) // self.size)

    def __getitem__(self, number: int) -> Group:
        """The shards of update `number`, counting from 0."""
        first = number * self.size
        return Group(self.shards, range(first, min(first + self.size, len(self.shards))))


def count_updates(task: Task[Any], epoch: int, shards: int) -> int:
    """Updates of the 1-based `epoch` at `shards` to an update."""
    return len(Groups(task.epoch(epoch, shards), shards))
