"""Options of a training run: grid of an update, and the seed of everything random."""

from __future__ import annotations

from seqba.errors import UserError
from seqba.options import option, options
from seqba.training.copies import CopySchedule, copies_option, read_copies

PLANS = ("auto", "stacked", "looped")
"""Plans that have a name; `seqba.core.parse_plan` reads them."""


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

    @property
    def copy_schedule(self) -> CopySchedule:
        """M of each update."""
        return read_copies(self.copies)
