"""How many copies each update has: one number, or a schedule; and their powers."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass


@dataclass(frozen=True)
class CopySchedule:
    """M of each update.

    Attributes:
        copies: numbers of copies.
        starts: the update from which on there are so many; the first is 0, for a run's beginning.
    """

    copies: tuple[int, ...]
    starts: tuple[int, ...] = (0,)

    @property
    def is_constant(self) -> bool:
        """Whether M stays what it is."""
        return len(self.copies) == 1

    @property
    def most(self) -> int:
        """The largest M."""
        return max(self.copies)

    @property
    def least(self) -> int:
        """The smallest M."""
        return min(self.copies)

    def at(self, update: int) -> int:
        """M of the 1-based `update`."""
        return self.copies[max(0, bisect_right(self.starts, update) - 1)]

    def __str__(self) -> str:
        """`4`, or `1:0,4:2000`, as --copies takes it."""
        if self.is_constant:
            return str(self.copies[0])
        return ",".join(f"{copies}:{start}" for copies, start in zip(self.copies, self.starts, strict=True))


def read_copies(value: int | str) -> CopySchedule:
    """A schedule from `4`, or from `1:0,4:2000`: 1 copy from the beginning, 4 from update 2000 on.

    Raises:
        ValueError: for a text that is none, starts that don't rise from 0, or less than 1 copy.
    """
    if isinstance(value, int):
        return CopySchedule((value,))
    try:
        pairs = [tuple(map(int, pair.split(":"))) for pair in value.split(",")]
        copies, starts = zip(*((copies, start) for copies, start in pairs), strict=True)
    except ValueError:
        raise ValueError(f"{value!r} is neither a number nor a schedule like 1:0,4:2000") from None
    if starts[0] != 0 or list(starts) != sorted(set(starts)):
        raise ValueError(f"the updates of {value} must rise from 0, which is the beginning: 1:0,4:2000, say")
    if min(copies) < 1:
        raise ValueError(f"{value} has {min(copies)} copies; there must be at least 1")
    return CopySchedule(copies, starts)


def copies_option(text: str) -> int | str:
    """Value of --copies on a command line: a number where it is one, the text of a schedule otherwise.

    Raises:
        ValueError: as `read_copies`.
    """
    try:
        return int(text)
    except ValueError:
        return str(read_copies(text))


LARGEST_POWER = 4


def power_of_copies(text: str, copies: int) -> float:
    """The factor that `M^0.5`, say, or `M` is for so many copies.

    Raises:
        ValueError: for another text, or a power beyond ±4.
    """
    base, mark, power = text.partition("^")
    try:
        if base != "M" or (mark and not power):
            raise ValueError
        value = float(power or 1)
    except ValueError:
        raise ValueError(f"{text!r} is neither a number nor a power of the copies like M^0.5") from None
    if not abs(value) <= LARGEST_POWER:
        raise ValueError(f"the power of {text} must be from -{LARGEST_POWER} to {LARGEST_POWER}")
    return float(copies**value)


def factor_option(text: str) -> float | str:
    """Value of --lr-factor on a command line: a number where it is one, the text of a power of M otherwise.

    Raises:
        ValueError: as `power_of_copies`.
    """
    try:
        return float(text)
    except ValueError:
        power_of_copies(text, 1)
        return text
