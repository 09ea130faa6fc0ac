"""`seqba-advise`: a measured split of the variance and measured times → how many copies pay, in plain words."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

from seqba.cli.arguments import Parser, read_options
from seqba.cli.command import run_process
from seqba.cli.options.advise import AdviseOptions
from seqba.cli.output import warnings_on_stderr
from seqba.data.outputs import check_file

DESCRIPTION = (
    "Says how many copies (M) pay, from what seqba-measure --json wrote and the time of an update at several M, which "
    "it measures on this device, stacked and looped, with the batches that the checkpoint was trained with: what M "
    "copies are worth in examples, where that ends, and the predicted updates and time to the same loss against M = 1. "
    "The prediction takes the learning rate to be tuned for each M, and the split to stay as it was measured; what "
    "copies do for generalisation is in no variance. Example: seqba-advise split.json --copies 2,4,8."
)


def build_parser() -> Parser:
    """The command line of seqba-advise."""
    parser = Parser("seqba-advise", DESCRIPTION)
    parser.add_argument("measured", metavar="MEASURED", help="what seqba-measure --json wrote")
    parser.add_options(AdviseOptions, "what is compared")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Times updates and prints the advice."""
    logging.basicConfig(level=logging.WARNING, format="warning: %(message)s", stream=sys.stderr)
    namespace = build_parser().parse(arguments)
    options = read_options(namespace, AdviseOptions)
    if options.json is not None:
        check_file(options.json, f"--json {options.json}")
    from seqba.cli.jobs.advise import print_advice  # brings torch, for which --help and a mistake need not wait

    with warnings_on_stderr():
        print_advice(namespace.measured, options)
    return 0


def entry() -> None:
    """The console script."""
    run_process(main)
