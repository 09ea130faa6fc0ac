"""Options of a training run: grid of an update, with M of each, and the seed of everything random."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Container
from dataclasses import dataclass, replace

from seqba.errors import UserError
from seqba.options import option, options

PLANS = ("auto", "stacked", "looped")
"""Plans that have a name; `seqba.core.parse_plan` reads them."""


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


ONE_COPY = CopySchedule((1,))


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


@options
class GridOptions:
    """Grid of an update, S micro-batches × M copies, and the seed of everything random."""

    seed: int = option(1, "seed of the weights, the order of the data and the noise", minimum=0, maximum=2**63 - 1)
    copies: int | str = option(
        1,
        "M, noisy views of each example per update (Batch Augmentation; not in fairseq); or a schedule: 1:0,4:2000 is "
        "1 copy from the beginning and 4 from update 2000 on",
        minimum=1,
        metavar="N or N:UPDATE,…",
        read=copies_option,
    )
    update_freq: tuple[int, ...] = option(
        (1,),
        "S, micro-batches (batches of distinct examples) per update for the whole job, whatever the hardware; "
        "a list gives one per epoch, the last one staying",
        minimum=1,
        metavar="N[,N]",
    )
    arm: str = option(
        "ba",
        "the paper's columns from one command line: baseline = 1 copy, fixed-samples = copies × update-freq distinct "
        "micro-batches and 1 copy, ba = as given; and large-batch = micro-batches of copies × their size and 1 copy "
        "(for what images and streams share: batch norm, weight masks), fixed-rows = 1/copies of the examples, at the "
        "baseline's cost. Epochs in options are the baseline's in every arm (not in fairseq)",
        choices=("baseline", "fixed-samples", "ba", "large-batch", "fixed-rows"),
    )
    plan: str = option(
        "auto",
        "where copies run: stacked (one pass), looped (one pass each), auto (as many per pass as memory suits), or a "
        "number of copies per pass; the gradient is the same (not in fairseq)",
        metavar="PLAN",
    )

    fork: str | None = option(
        None,
        "where in the model the copies begin; what is below is computed once for all of them, with one draw of its "
        "noise: encoder (behind it) or decoder-layer-N (before layer N) of a Transformer, layer-N of a language model, "
        "head of an AWD-LSTM, VGG or AlexNet (default: at the input; not in fairseq)",
        metavar="PLACE",
    )

    def __post_init__(self) -> None:
        """Refuses copies and a plan that are none."""
        try:
            read_copies(self.copies)
        except ValueError as error:
            raise UserError(f"--copies: {error}") from None
        if self.plan not in PLANS and not (self.plan.isdecimal() and int(self.plan) >= 1):
            raise UserError(f"--plan is {self.plan!r}; choose {', '.join(PLANS)}, or a number of copies per pass")

    def with_compared_copies(self, given: Container[str]) -> GridOptions:
        """The same for a loss that compares copies: two of them, in one pass, where `given` doesn't name the option."""
        copies = self.copies if "copies" in given else 2
        return replace(self, copies=copies, plan=self.plan if "plan" in given else "stacked")

    @property
    def copy_schedule(self) -> CopySchedule:
        """M of each update."""
        return read_copies(self.copies)
