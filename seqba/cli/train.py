"""`seqba-train`: a data-bin → checkpoints."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

from seqba.cli.arguments import Parser, read_options
from seqba.cli.command import run
from seqba.cli.fairseq_train import UNSUPPORTED
from seqba.models.architectures import ARCHITECTURES, TransformerOptions
from seqba.tasks.options import BatchOptions, CriterionOptions
from seqba.tasks.translation import TranslationOptions
from seqba.training.bleu import BleuOptions
from seqba.training.options import (
    CheckpointOptions,
    GridOptions,
    LogOptions,
    OptimisationOptions,
    RunOptions,
    ScheduleOptions,
    TrainingOptions,
    ValidationOptions,
)
from seqba.training.run import Recipe, train

GROUPS = {
    "translation": TranslationOptions,
    "the grid of an update": GridOptions,
    "batches": BatchOptions,
    "criterion": CriterionOptions,
    "model": TransformerOptions,
    "optimisation": OptimisationOptions,
    "learning rate": ScheduleOptions,
    "run": RunOptions,
    "validation": ValidationOptions,
    "BLEU in validation": BleuOptions,
    "checkpoints": CheckpointOptions,
    "log": LogOptions,
}


def build_parser() -> Parser:
    """The command line of seqba-train."""
    parser = Parser(
        "seqba-train",
        "Train a model with Batch Augmentation: every update sees each example --copies times, each time through its "
        "own noise. Run the same command again to go on after an interruption.",
        unsupported=UNSUPPORTED,
    )
    parser.add_argument("data", metavar="DATA", help="data-bin; several, separated by colons, take turns by epoch")
    parser.add_argument("--task", default="translation", choices=("translation",), help="what is learned")
    parser.add_argument(
        "--arch", "-a", default="transformer_wmt_en_de", choices=tuple(ARCHITECTURES), help="named sizes of a model"
    )
    for title, options in GROUPS.items():
        parser.add_options(options, title)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains; returns 0, or 143 / 130 after a SIGTERM / SIGINT that was obeyed.

    Raises:
        UserError: for what the user can mend.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    given = build_parser().parse(arguments)
    recipe = Recipe(
        data=given.data,
        arch=given.arch,
        translation=read_options(given, TranslationOptions),
        batches=read_options(given, BatchOptions),
        criterion=read_options(given, CriterionOptions),
        model=read_options(given, TransformerOptions),
        bleu=read_options(given, BleuOptions),
        training=TrainingOptions(
            grid=read_options(given, GridOptions),
            optimisation=read_options(given, OptimisationOptions),
            schedule=read_options(given, ScheduleOptions),
            run=read_options(given, RunOptions),
            validation=read_options(given, ValidationOptions),
            checkpoints=read_options(given, CheckpointOptions),
            log=read_options(given, LogOptions),
        ),
    )
    return train(recipe)


def entry() -> None:
    """The console script."""
    sys.exit(run(main))
