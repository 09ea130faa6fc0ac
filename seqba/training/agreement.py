"""Status that the ranks of a run agree on between updates: stop, unreadable data, time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from seqba.core import Group
from seqba.distributed.batch_broadcast import raise_read_error
from seqba.errors import UserError


class Interrupted(Exception):
    """Raised where a signal asks to stop before a validation is through."""


def refuse_on_all(refusal: str | None, ranks: Group) -> None:
    """Ends all ranks in the words of the one that can't go on.

    Args:
        refusal: why this rank can't; None if it can.
        ranks: the processes of the run; each must call this.

    Raises:
        UserError: on all of them, if one can't.
    """
    for told in ranks.gather(refusal):
        if told is not None:
            raise UserError(told)


@dataclass(frozen=True)
class Status:
    """State of a rank; of all ranks, once they agree on it.

    Attributes:
        stop: whether a signal has asked to stop, on any rank.
        unreadable: whether what comes next can't be read, on any rank.
        elapsed_s: seconds of training; the mean of the ranks' clocks.
    """

    stop: bool = False
    unreadable: bool = False
    elapsed_s: float = 0.0

    def as_sums(self) -> tuple[float, ...]:
        """Numbers that are added up over the ranks."""
        return (float(self.stop), float(self.unreadable), self.elapsed_s)

    @classmethod
    def agreed(cls, sums: Sequence[float], size: int) -> Status:
        """Status of `size` ranks, from their `as_sums` added up."""
        stop, unreadable, elapsed_s = sums
        return cls(stop > 0, unreadable > 0, elapsed_s / size)

    @classmethod
    def merged(cls, statuses: Sequence[Status]) -> Status:
        """Status of all ranks, from each one's."""
        return cls.agreed(
            [sum(values) for values in zip(*(own.as_sums() for own in statuses), strict=True)], len(statuses)
        )

    def over(self, ranks: Group, device: torch.device) -> Status:
        """Status of all ranks, by a message of its own. All ranks must call it."""
        return Status.agreed(summed(ranks, self.as_sums(), device), ranks.size)

    def raise_if_ended(self, read: object) -> None:
        """Raises the reason why a rank can't go on, on all ranks.

        Args:
            read: what this rank has read, or the error that says why it can't.

        Raises:
            UserError: this rank's error, or that another rank has one.
            Interrupted: if any rank was asked to stop.
        """
        if self.unreadable:
            raise_read_error(read)
        if self.stop:
            raise Interrupted


GOING_ON = Status()
"""Status without a reason to end."""


def summed(ranks: Group, numbers: Sequence[float], device: torch.device) -> list[float]:
    """Sums of each number over the ranks, the same on all of them. All ranks must call it."""
    sums = torch.tensor(numbers, dtype=torch.float64, device=device)
    ranks.add_up([sums])
    values: list[float] = sums.tolist()
    return values
