"""Options of seqba-measure."""

from __future__ import annotations

from seqba.errors import UserError
from seqba.options import is_given, option, options
from seqba.plotting.picture import THEMES


@options
class MeasureOptions:
    """Measurement, and where its results go."""

    path: str | None = option(None, "the checkpoint (needed)", metavar="FILE")
    gen_subset: str = option("train", "the split that examples are drawn from", metavar="SPLIT")
    examples: int = option(
        100, "N, examples (sentence pairs, blocks, windows, pictures) of the split of the variance", minimum=2
    )
    draws: int = option(4, "m, draws of the noise for each: N·m passes over single examples", minimum=2)
    pairs: int = option(100, "pairs for each correlation, 4 or 5 passes each; 0 = no correlations", minimum=0)
    fork: str | None = option(
        None,
        "which share of the noise is above this place, where copies may begin (encoder, decoder-layer-N, layer-N or "
        "head, as seqba-train has it): 4 more passes of each example",
        metavar="PLACE",
    )
    fresh: bool = option(False, "take new weights (of --seed) instead of the trained ones: update 0")
    batch_norm: str = option(
        "own",
        "images: batch norms take the statistics of the one image (own, the paper's numbers at the start), or running",
        choices=("own", "running"),
    )
    cutout: int | None = option(
        None, "images: measure with squares of this side blanked, 0 = none (default: as in training)", minimum=0
    )
    seed: int = option(1, "of the choice of examples, the noise and --fresh", minimum=0, maximum=2**63 - 1)
    json: str | None = option(None, "write all that was measured to this file", metavar="FILE")
    plot: str | None = option(
        None, "draw what M copies are worth (.svg, .png or .pdf; needs seqba[plot])", metavar="FILE"
    )
    theme: str = option("both", "of --plot: light, dark, or both", choices=tuple(THEMES))
    quiet: bool = option(False, "no progress bar")
    cpu: bool = option(False, "run on the CPU even where there is a GPU")

    def __post_init__(self) -> None:
        """Checks what no single option can."""
        if self.path is None:
            raise UserError("--path is missing: which checkpoint shall be measured? (checkpoints/checkpoint_best.pt)")
        if is_given(self, "theme") and self.plot is None:
            raise UserError("--theme belongs to --plot, which isn't given")
