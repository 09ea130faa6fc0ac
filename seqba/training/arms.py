"""Arms of a comparison: the paper's three columns and two further ones, each a grid derived from the same options."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from fractions import Fraction

from seqba.core import ALONE, Group
from seqba.errors import UserError
from seqba.options import flag_of
from seqba.tasks.options import BatchOptions
from seqba.training.options import GridOptions, RunOptions
from seqba.training.options.grid import ONE_COPY, CopySchedule


@dataclass(frozen=True)
class GridShape:
    """Shape of an update.

    Attributes:
        micro_batches_per_epoch: S for epoch 1, 2, …; the last one stays.
        copies: M of each update.
        batch_scale: what the size of a micro-batch is multiplied by.
        fork: where in the model the copies begin; None for the input.
    """

    micro_batches_per_epoch: tuple[int, ...]
    copies: CopySchedule = ONE_COPY
    batch_scale: Fraction = Fraction(1)
    fork: str | None = None

    def micro_batches(self, epoch: int) -> int:
        """S in the 1-based `epoch`."""
        return self.micro_batches_per_epoch[min(epoch, len(self.micro_batches_per_epoch)) - 1]

    def has_epochs_of(self, options: GridOptions) -> bool:
        """Whether an epoch of this arm has as many updates as one of the arm baseline."""
        return self.batch_scale == 1 and self.micro_batches_per_epoch == options.update_freq

    def resized(self, batches: BatchOptions) -> BatchOptions:
        """Sizes of this arm's micro-batches; validation's are the same in every arm.

        Raises:
            UserError: for a size that the copies don't divide.
        """
        if self.batch_scale == 1:
            return batches
        return replace(
            batches,
            max_tokens=self._scaled("max_tokens", batches.max_tokens),
            batch_size=self._scaled("batch_size", batches.batch_size),
            max_tokens_valid=batches.max_tokens_valid or batches.max_tokens,
            batch_size_valid=batches.batch_size_valid or batches.batch_size,
        )

    def _scaled(self, name: str, size: int | None) -> int | None:
        if size is None:
            return None
        scaled = size * self.batch_scale
        if scaled.denominator > 1:
            micro_batches = ",".join(map(str, self.micro_batches_per_epoch))
            raise UserError(
                f"--arm fixed-rows sees 1/M of the examples, but --copies {self.copies} divides neither --update-freq "
                f"{micro_batches} nor {flag_of(name)} {size}: give a multiple of {self.copies} for one of them, in all "
                "arms"
            )
        return int(scaled)


def derive_grid(options: GridOptions) -> GridShape:
    """Shape of an arm's updates.

    With `--update-freq S --copies M` and micro-batches of a size B:

        baseline         S micro-batches of B,      1 copy
        fixed-samples    S·M micro-batches of B,    1 copy: as many distinct examples as ba has views, in as many
                                                    updates
        ba               S micro-batches of B,      M copies
        large-batch      S micro-batches of M·B,    1 copy: fixed-samples, but what a batch shares (batch norm, weight
                                                    masks) is shared by all M·B
        fixed-rows       S/M micro-batches of B,    M copies: 1/M of the examples, an update at the baseline's cost;
                                                    S micro-batches of B/M where M doesn't divide S

    Where there are copies, `--fork` says where they begin. A schedule of M is for ba, and for baseline, which has none.

    The first three are the paper's columns. Batch norm sees B different rows in fixed-rows as in the baseline, unless
    the micro-batches themselves are made smaller.

    Source: Hoffer et al. 2020, table 2 and section 4.3; fixed-rows: Fort et al. 2021 (arXiv 2105.13343).
    """
    micro_batches, copies = options.update_freq, options.copy_schedule
    if options.arm == "baseline":
        return GridShape(micro_batches)
    if options.arm == "ba":
        return GridShape(micro_batches, copies, fork=options.fork)
    if not copies.is_constant:
        raise UserError(
            f"--copies {copies} changes M on the way, and --arm {options.arm} would change its examples with it: "
            "schedules are for the arms ba and baseline"
        )
    times = copies.most
    if options.arm == "fixed-samples":
        return GridShape(tuple(number * times for number in micro_batches))
    if options.arm == "large-batch":
        return GridShape(micro_batches, batch_scale=Fraction(times))
    if all(number % times == 0 for number in micro_batches):
        return GridShape(tuple(number // times for number in micro_batches), copies, fork=options.fork)
    return GridShape(micro_batches, copies, Fraction(1, times), options.fork)


@dataclass
class BaselineEpochs:
    """Epochs of the arm baseline, in updates: options count in these, whatever the arm.

    Attributes:
        length: number of an epoch, from 1 → its updates; asked once for each.
    """

    length: Callable[[int], int]
    _ends: list[int] = field(default_factory=lambda: [0], init=False)

    def done(self, updates: int) -> int:
        """Whole epochs after so many updates."""
        while self._ends[-1] <= updates:
            self._ends.append(self._ends[-1] + self.length(len(self._ends)))
        return bisect_right(self._ends, updates) - 1

    def is_end(self, updates: int) -> bool:
        """Whether the last of so many updates ends an epoch."""
        return updates > 0 and self._ends[self.done(updates)] == updates


def check_ranks(ranks: Group, grid: GridShape, options: RunOptions, *, measure_every: int = 0) -> None:
    """Refuses more ranks than an update has cells, in any epoch, and options that the number of processes excludes.

    Raises:
        UserError: with the numbers.
    """
    if ranks is ALONE:
        if options.broadcast_batches:
            raise UserError("--broadcast-batches is for several processes: start them with torchrun, or leave it out")
        if options.shard_params:
            raise UserError("--shard-params is for several processes: start them with torchrun, or leave it out")
    else:
        if measure_every:
            raise UserError("--measure-every needs all cells of an update in one process: leave it out under torchrun")
        try:
            ranks.check(min(grid.micro_batches_per_epoch), grid.copies.least)
        except ValueError as error:
            raise UserError(f"{error} (--update-freq, --copies)") from None
