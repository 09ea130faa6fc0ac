"""Options that every task shares: the size of micro-batches, and the criterion."""

from __future__ import annotations

from seqba.data.limits import LARGEST_WEIGHT
from seqba.errors import UserError
from seqba.options import number_text, option, options


@options
class BatchOptions:
    """Options of grouping examples into micro-batches."""

    max_tokens: int | None = option(
        None, "tokens of a micro-batch: rows × longest padded side; this or --batch-size is needed", minimum=1
    )
    batch_size: int | None = option(
        None, "most rows of a micro-batch; of images, exactly so many", minimum=1, aliases=("max-sentences",)
    )
    required_batch_size_multiple: int = option(
        8, "rows of a micro-batch are a multiple of it where they can", minimum=1
    )
    train_subset: str = option("train", "name of the training split")
    weights: tuple[float, ...] = option(
        (),
        "how often an example of each training text (train, train1, …) comes in an epoch; 0.5: every second epoch "
        "(default: as seqba-preprocess --weights says, else once)",
        above=0,
        maximum=LARGEST_WEIGHT,
    )
    valid_subset: str = option(
        "valid", "names of the validation splits, separated by commas; the first one decides", metavar="NAME[,NAME]"
    )
    max_tokens_valid: int | None = option(None, "max-tokens of validation (default: max-tokens)", minimum=1)
    batch_size_valid: int | None = option(
        None, "batch-size of validation (default: batch-size)", minimum=1, aliases=("max-sentences-valid",)
    )
    skip_invalid_size_inputs_valid_test: bool = option(
        False, "leave out validation lines that are too long for the model instead of refusing them"
    )

    def __post_init__(self) -> None:
        """Refuses to guess how large a micro-batch is."""
        if self.max_tokens is None and self.batch_size is None:
            raise UserError(
                "how large is a micro-batch? Give --max-tokens (4096, say), or --batch-size, which a recurrent model "
                "needs"
            )


@options
class CriterionOptions:
    """Options of the loss, and of what its sum is divided by."""

    criterion: str = option(
        "cross_entropy",
        "the loss; …_with_rdrop adds how far the predictions of an example's copies diverge (R-Drop)",
        choices=("cross_entropy", "label_smoothed_cross_entropy", "label_smoothed_cross_entropy_with_rdrop"),
    )
    label_smoothing: float = option(
        0.0, "probability spread over the other words, or classes, by label_smoothed_cross_entropy", minimum=0, below=1
    )
    consistency: float = option(
        0.0,
        "weight of how far the copies of an example differ, beside the mean of their losses: of a Transformer the KL "
        "divergence of their predictions (R-Drop, for any number of copies), of an AWD-LSTM the mean square of the "
        "difference of their logits (fraternal dropout's κ, 0.15 say); needs --copies of at least 2 (default: 2), and "
        "costs a forward more of each where they aren't all in one pass, as in --plan stacked, the default then (not "
        "in fairseq)",
        minimum=0,
    )
    rdrop_alpha: float = option(
        0.0,
        "fairseq's name and measure of --consistency, for its criterion …_with_rdrop: beside the sum of two copies' "
        "losses, so that --rdrop-alpha 5 is --consistency 2.5",
        minimum=0,
    )
    sentence_avg: bool = option(False, "divide the gradient by sentences instead of target tokens")

    def __post_init__(self) -> None:
        """Refuses what the criterion would ignore."""
        if self.label_smoothing > 0 and self.criterion == "cross_entropy":
            raise UserError(
                "--label-smoothing has no effect on cross_entropy: add --criterion label_smoothed_cross_entropy"
            )
        if self.rdrop_alpha > 0 and self.consistency > 0:
            raise UserError(
                f"--consistency and --rdrop-alpha are one term, and --rdrop-alpha {number_text(self.rdrop_alpha)} is "
                f"--consistency {number_text(self.rdrop_alpha / 2)}: give one of them"
            )
        if self.rdrop_alpha > 0 and self.criterion != "label_smoothed_cross_entropy_with_rdrop":
            raise UserError(
                f"--rdrop-alpha has no effect on {self.criterion}: add --criterion "
                "label_smoothed_cross_entropy_with_rdrop"
            )

    @property
    def compares_copies(self) -> bool:
        """Whether the loss of a copy depends on the others."""
        return self.difference_weight > 0

    @property
    def difference_weight(self) -> float:
        """Weight of the difference between copies, beside the mean of their losses."""
        return self.consistency or self.rdrop_alpha / 2

    @property
    def comparing_option(self) -> str | None:
        """The option that compares copies, as it was given; None for none."""
        if not self.compares_copies:
            return None
        return "--rdrop-alpha" if self.rdrop_alpha else "--consistency"
