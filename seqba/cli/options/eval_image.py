"""Options of seqba-eval-image."""

from __future__ import annotations

from seqba.errors import UserError
from seqba.evaluation.options import AVERAGES
from seqba.options import flag_of, is_given, option, options


@options
class EvalImageOptions:
    """Options of seqba-eval-image: the model, the pictures, their views, and the output."""

    path: str | None = option(None, "the checkpoint (needed)", metavar="FILE")
    gen_subset: str = option("test", "the split to score; held-out is what --hold-out left out of training")
    batch_size: int = option(256, "pictures of a batch", minimum=1, aliases=("max-sentences",))
    tta: int = option(
        0,
        "test-time augmentation: average over so many random views, drawn as in training but for cutout; 0 = one view "
        "of the middle",
        minimum=0,
    )
    tta_average: str = option(
        "probabilities",
        "what --tta averages: probabilities, or logits as the released code of Batch Augmentation does",
        choices=AVERAGES,
    )
    tta_cutout: int = option(
        0,
        "blank a square of this side in the views of --tta; 0 = none, as in the released code unless it is asked for",
        minimum=0,
    )
    seed: int = option(1, "of the views", minimum=0, maximum=2**63 - 1)
    num_workers: int = option(2, "processes that decode pictures ahead of time", minimum=0)
    output_predictions: bool = option(
        False, "print a line for each picture: number, class, likeliest class, its probability"
    )
    quiet: bool = option(False, "print the accuracies alone")
    cpu: bool = option(False, "run on the CPU even where there is a GPU")
    bf16: bool = option(False, "compute in bfloat16, weights included")

    def __post_init__(self) -> None:
        """Refuses combinations of options."""
        if self.path is None:
            raise UserError("--path is missing: which checkpoint shall be evaluated? (checkpoints/checkpoint_best.pt)")
        for name in ("tta_average", "tta_cutout"):
            if not self.tta and is_given(self, name):
                raise UserError(f"{flag_of(name)} belongs to --tta, which is 0: one view of the middle is seen")
        if self.tta_cutout == 1:
            raise UserError("--tta-cutout 1 would blank nothing: an odd side acts as the even number below it")
        if self.quiet and self.output_predictions:
            raise UserError("--quiet and --output-predictions exclude each other")
