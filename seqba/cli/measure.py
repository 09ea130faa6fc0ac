"""`seqba-measure`: a checkpoint and data → where the variance of its gradient comes from, and what copies are worth."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

from seqba.cli.arguments import Parser, read_options
from seqba.cli.command import run_process
from seqba.cli.options.measure import MeasureOptions
from seqba.data.outputs import check_file
from seqba.plotting.picture import check_output

DESCRIPTION = (
    "Measures what Batch Augmentation has to gain: the variance of a model's gradient, split into what lies between "
    "examples (S_b, which more examples reduce) and the noise within one (S_w, which copies reduce as well), and how "
    "alike gradients of single examples are (the paper's Table 1). A batch of B examples and M copies has E‖ĝ‖² = |G|² "
    "+ S_b/B + S_w/(M·B). seqba-advise makes a recommendation of the --json that this writes. Statistics move during "
    "training: measure several checkpoints, and with --fresh the model before its first update. Example: seqba-measure "
    "data-bin --path checkpoints/checkpoint_last.pt --json split.json, and then seqba-advise split.json."
)


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
        check_file(options.json, f"--json {options.json}")
    if options.plot is not None:
        check_output(options.plot)
    from seqba.cli.jobs.measure import measure  # brings torch, for which --help and a mistake need not wait

    measure(namespace.data, options)
    return 0


def entry() -> None:
    """The console script."""
    run_process(main)
