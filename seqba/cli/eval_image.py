"""seqba-eval-image: a classifier and a split of pictures → accuracy, also over noisy views."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from seqba.cli.arguments import Parser, read_options
from seqba.cli.command import run_process
from seqba.cli.options.eval_image import EvalImageOptions


def build_parser() -> Parser:
    """The command line of seqba-eval-image."""
    parser = Parser(
        "seqba-eval-image",
        "Measures the top-1 and top-5 accuracy of an image classifier on a split, in one view or averaged over many.",
    )
    parser.add_argument("data", help="folder of the pictures, as for seqba-train")
    parser.add_options(EvalImageOptions, "model, pictures and output")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Scores a split and prints its accuracies."""
    logging.basicConfig(level=logging.WARNING, format="warning: %(message)s", stream=sys.stderr)
    namespace = build_parser().parse(arguments)
    options = read_options(namespace, EvalImageOptions)
    from seqba.cli.jobs.eval_image import evaluate  # brings torch, for which --help and a mistake need not wait

    evaluate(Path(namespace.data), options)
    return 0


def entry() -> None:
    """The `seqba-eval-image` command."""
    run_process(main)
