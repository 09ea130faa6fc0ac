"""seqba-average-checkpoints: several checkpoints → one whose weights are their mean."""

from __future__ import annotations

from collections.abc import Sequence

from seqba.cli.arguments import Parser, read_options
from seqba.cli.command import run_process
from seqba.cli.options.average_checkpoints import AverageOptions
from seqba.data.outputs import check_file


def build_parser() -> Parser:
    """The command line of seqba-average-checkpoints."""
    parser = Parser(
        "seqba-average-checkpoints",
        "Writes a checkpoint whose weights are the mean of others'. Everything else comes from the first of them, "
        "but for the optimizer's state, which belongs to no average: the result is for evaluating and fine-tuning, "
        "not for going on with a run.",
    )
    parser.add_argument(
        "--inputs", nargs="+", required=True, metavar="FILE", help="checkpoints, or one folder with one of --num-*"
    )
    parser.add_options(AverageOptions, "what is averaged")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Averages checkpoints and prints their names."""
    namespace = build_parser().parse(arguments)
    options = read_options(namespace, AverageOptions)
    check_file(str(options.output), f"--output {options.output}")
    from seqba.cli.jobs.average_checkpoints import average  # brings torch, for which --help and a mistake need not wait

    average(namespace.inputs, options)
    return 0


def entry() -> None:
    """The `seqba-average-checkpoints` command."""
    run_process(main)
