"""The paper's three columns, and the grid of each, from one command line."""

from __future__ import annotations

from dataclasses import dataclass

from seqba.core import parse_plan
from seqba.errors import UserError
from seqba.training.options import GridOptions


@dataclass(frozen=True)
class Grid:
    """The shape of an update.

    Attributes:
        shards_per_epoch: S for epoch 1, 2, …; the last one stays.
        copies: M.
    """

    shards_per_epoch: tuple[int, ...]
    copies: int

    def shards(self, epoch: int) -> int:
        """S in the 1-based `epoch`."""
        return self.shards_per_epoch[min(epoch, len(self.shards_per_epoch)) - 1]


def derive_grid(options: GridOptions) -> Grid:
    """The grid of an arm.

    With `--update-freq S --copies M`:

        baseline         S shards,    1 copy
        fixed-samples    S·M shards,  1 copy: as many distinct examples as ba has views, in as many updates
        ba               S shards,    M copies

    Raises:
        UserError: for a plan that isn't one.

    Source: Hoffer et al. 2020, table 2 and section 4.3.
    """
    try:
        parse_plan(options.plan)
    except ValueError as error:
        raise UserError(f"--{error}") from None
    if options.arm == "baseline":
        return Grid(options.update_freq, 1)
    if options.arm == "fixed-samples":
        return Grid(tuple(shards * options.copies for shards in options.update_freq), 1)
    return Grid(options.update_freq, options.copies)
