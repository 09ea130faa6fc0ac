"""Options of seqba-average-checkpoints."""

from __future__ import annotations

from seqba.errors import UserError
from seqba.options import option, options


@options
class AverageOptions:
    """Options of seqba-average-checkpoints: the checkpoints of a folder, and where the mean goes."""

    output: str | None = option(None, "the checkpoint to write (needed)", metavar="FILE")
    num_epoch_checkpoints: int | None = option(None, "average the last N checkpointE.pt of the folder", minimum=1)
    num_update_checkpoints: int | None = option(None, "average the last N checkpoint_E_U.pt of the folder", minimum=1)
    num_best_checkpoints: int | None = option(
        None, "average the best N checkpoint.best_METRIC_VALUE.pt of the folder", minimum=1
    )
    checkpoint_upper_bound: int | None = option(
        None, "leave out epochs (or updates) later than this, with --num-epoch- or --num-update-checkpoints", minimum=1
    )

    def __post_init__(self) -> None:
        """Refuses combinations of options."""
        if self.output is None:
            raise UserError("--output is missing: where shall the averaged checkpoint go?")
        by_number = (self.num_epoch_checkpoints, self.num_update_checkpoints)
        if sum(number is not None for number in (*by_number, self.num_best_checkpoints)) > 1:
            raise UserError("give one of --num-epoch-checkpoints, --num-update-checkpoints, --num-best-checkpoints")
        if self.checkpoint_upper_bound is not None and by_number == (None, None):
            raise UserError("--checkpoint-upper-bound needs --num-epoch-checkpoints or --num-update-checkpoints")
