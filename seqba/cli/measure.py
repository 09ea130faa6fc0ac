"""`seqba-measure`: a checkpoint and data → where the variance of its gradient comes from, and what copies are worth."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

from seqba.cli.arguments import Parser, read_options
from seqba.cli.command import run
from seqba.data.files import check_folder
from seqba.errors import UserError
from seqba.options import is_given, option, options
from seqba.plotting.picture import THEMES, check_output

DESCRIPTION = (
    "Measures what Batch Augmentation has to gain: the variance of a model's gradient, split into what lies between "
    "examples (S_b, which more examples reduce) and the noise within one (S_w, which copies reduce as well), and how "
    "alike gradients of single examples are (the paper's Table 1). A batch of B examples and M copies has E‖ĝ‖² = |G|² "
    "+ S_b/B + S_w/(M·B). seqba-advise makes a recommendation of the --json that this writes. Statistics move during "
    "training: measure several checkpoints, and with --fresh the model before its first update. Example: seqba-measure "
    "data-bin --path checkpoints/checkpoint_last.pt --json split.json, and then seqba-advise split.json."
)


@options
class MeasureOptions:
    """Measurement, and where its results go."""

    path: str | None = option(None, "the checkpoint", metavar="FILE")
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


def build_parser() -> Parser:
    """The command line of seqba-measure."""
    parser = Parser("seqba-measure", DESCRIPTION)
    parser.add_argument("data", help="data-bin or folder of pictures that the checkpoint was trained on")
    parser.add_options(MeasureOptions, "what is measured")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures a checkpoint and prints what came out."""
    logging.basicConfig(level=logging.WARNING, format="warning: %(message)s", stream=sys.stderr)
    namespace = build_parser().parse(arguments)
    options = read_options(namespace, MeasureOptions)
    if options.json is not None:
        check_folder(options.json, f"--json {options.json}")
    if options.plot is not None:
        check_output(options.plot)
    from seqba.cli.jobs.measure import measure  # brings torch, for which --help and a mistake need not wait

    measure(namespace.data, options)
    return 0


def entry() -> None:
    """The console script."""
    sys.exit(run(main))
