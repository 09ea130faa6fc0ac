"""Batches that one rank reads and sends to the others that have copies of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, NoReturn

import torch.distributed as dist

from seqba.distributed.lost import collective_errors
from seqba.distributed.ranks import Ranks
from seqba.errors import UserError
from seqba.runtime.devices import in_own_memory


@dataclass(frozen=True)
class BatchBroadcast:
    """Reads every batch once: of the ranks that have copies of it the first reads it, and sends it to the others.

    Attributes:
        ranks: the processes of the run.
        timeout_s: how long a rank waits for the one that reads.
    """

    ranks: Ranks
    timeout_s: float
    _groups: dict[range, dist.ProcessGroup | None] = field(default_factory=dict, init=False)

    def load(self, micro_batches: int, copies: int, read: Callable[[int], Any]) -> dict[int, Any]:
        """This rank's batches of an update of `micro_batches`; all ranks must call it, in every update.

        Args:
            micro_batches: S of this update.
            copies: M of this update.
            read: number of a micro-batch → its batch; called for those that are this rank's to read.

        Raises:
            UserError: that `read` raised, on all ranks with a copy of that batch.
            RanksLost: if one of them is lost.
        """
        holders = self.ranks.holders(micro_batches, copies)
        for sharing in holders:
            if sharing not in self._groups:  # batches lie in the memory of the CPU, whatever trains
                with collective_errors():
                    group = dist.new_group(list(sharing), timedelta(seconds=self.timeout_s), "gloo")
                self._groups[sharing] = group if self.ranks.rank in sharing else None
        own = [number for number in range(micro_batches) if self.ranks.rank in holders[number]]
        batches = {number: self._shared(holders[number], number, read) for number in own}
        for batch in batches.values():
            if isinstance(batch, UserError):  # not before: others wait for what this rank sends them
                raise_read_error(batch)
        return batches

    def _shared(self, sharing: range, number: int, read: Callable[[int], Any]) -> Any:
        """A batch, or the error of the rank that reads it."""
        batch: Any = None
        if self.ranks.rank == sharing.start:
            batch = read_or_error(lambda: in_own_memory(read(number)))
        if len(sharing) > 1:
            batch = Ranks.of(self._groups[sharing]).broadcast(batch)
        return batch


def read_or_error(read: Callable[[], Any]) -> Any:
    """Result of `read()`, or the error that says why there is none."""
    try:
        return read()
    except UserError as error:
        return error


def raise_read_error(read: object) -> NoReturn:
    """Raises this rank's error as a new one, or tells of another rank's.

    An error that is raised where it is kept holds itself by its traceback, and so whatever the functions in there know,
    groups of ranks for instance, until Python's end.

    Args:
        read: result of `read_or_error` on this rank.

    Raises:
        UserError: always.
    """
    if isinstance(read, UserError):
        raise UserError(str(read))
    raise UserError("another rank can't read what it needs, and says why: mend it, and the same command goes on")
