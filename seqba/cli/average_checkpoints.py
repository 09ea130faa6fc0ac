"""seqba-average-checkpoints: several checkpoints → one whose weights are their mean."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from seqba.cli.arguments import Parser, read_options
from seqba.cli.command import run
from seqba.errors import UserError
from seqba.options import option, options


@options
class AverageOptions:
    """Options of seqba-average-checkpoints: the checkpoints of a folder, and where the mean goes."""

    output: str | None = option(None, "the checkpoint to write", metavar="FILE")
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
    from seqba.cli.jobs.average_checkpoints import average  # brings torch, for which --help and a mistake need not wait

    average(namespace.inputs, options)
    return 0


def entry() -> None:
    """The `seqba-average-checkpoints` command."""
    sys.exit(run(main))
