"""`seqba-train`: a data-bin, or a folder of pictures → checkpoints."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import os
import sys
from collections.abc import Iterable, Sequence

from seqba.cli.arguments import Parser, read_options
from seqba.cli.command import run
from seqba.cli.fairseq_train import OF_OTHER_TASKS, UNSUPPORTED
from seqba.errors import UserError
from seqba.models.families import ARCHITECTURES
from seqba.models.options import AWDLSTMOptions, ImageClassifierOptions, TransformerLMOptions, TransformerOptions
from seqba.options import flag_of
from seqba.tasks.image_classification import ImageOptions
from seqba.tasks.language_modeling import BlockOptions
from seqba.tasks.options import BatchOptions, CriterionOptions
from seqba.tasks.streams import StreamOptions
from seqba.tasks.translation import BleuOptions, TranslationOptions
from seqba.training.options import (
    OWN_OPTIONS,
    CheckpointOptions,
    GridOptions,
    LogOptions,
    OptimisationOptions,
    RunOptions,
    ScheduleOptions,
    TrainingOptions,
    ValidationOptions,
)
from seqba.training.recipe import DEFAULT_ARCH, KINDS, Kind, Recipe
from seqba.training.run import train

PROGRAM = "seqba-train"
COMMON = {
    "the grid of an update": GridOptions,
    "batches": BatchOptions,
    "criterion": CriterionOptions,
    "optimisation": OptimisationOptions,
    "learning rate": ScheduleOptions,
    "run": RunOptions,
    "validation": ValidationOptions,
    "checkpoints": CheckpointOptions,
    "log": LogOptions,
}
"""What every run has, whatever its task."""

SOME = {
    "translation": TranslationOptions,
    "BLEU in validation (translation)": BleuOptions,
    "Transformer": TransformerOptions,
    "blocks of text (language_modeling)": BlockOptions,
    "Transformer without encoder (language_modeling)": TransformerLMOptions,
    "running text (language_modeling)": StreamOptions,
    "AWD-LSTM (language_modeling)": AWDLSTMOptions,
    "pictures and their views (image_classification)": ImageOptions,
    "image networks (image_classification)": ImageClassifierOptions,
}
"""What `KINDS` gives to some tasks and families of models alone."""


def build_parser() -> Parser:
    """The command line of seqba-train."""
    parser = Parser(
        PROGRAM,
        "Train a model with Batch Augmentation: every update sees each example --copies times, each time through its "
        "own noise. Run the same command again to go on after an interruption. --task and --arch decide which of the "
        "other options there are.",
        unsupported=UNSUPPORTED,
    )
    parser.add_argument(
        "data",
        metavar="DATA",
        help="data-bin; several, separated by colons, take turns by epoch; for images a folder of pictures",
    )
    parser.add_argument(
        "--task", default="translation", choices=tuple(DEFAULT_ARCH), help="what is learned (default: translation)"
    )
    defaults = ", ".join(f"{arch} for {task}" for task, arch in DEFAULT_ARCH.items())
    parser.add_argument(
        "--arch", "-a", choices=tuple(ARCHITECTURES), help=f"named sizes of a model (default: {defaults})"
    )
    for title, options in {**COMMON, **SOME}.items():
        parser.add_options(options, title)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains; returns 0, or 143 / 130 after a SIGTERM / SIGINT that was obeyed.

    Raises:
        UserError: for what the user can mend.
    """
    first = int(os.environ.get("RANK", "0")) == 0
    logging.basicConfig(level=logging.INFO if first else logging.ERROR, format="%(message)s", stream=sys.stderr)
    return train(read_recipe(build_parser().parse(arguments)))


def read_recipe(given: argparse.Namespace) -> Recipe:
    """What a parsed command line asks for.

    Raises:
        UserError: for an option that the task or the architecture doesn't have, or a value out of range.
    """
    arch = given.arch or DEFAULT_ARCH[given.task]
    kind = _find_kind(given.task, arch)
    _refuse_foreign(given, arch, kind)
    return Recipe(
        task=given.task,
        data=given.data,
        arch=arch,
        task_options=read_options(given, kind.task),
        batches=read_options(given, BatchOptions),
        criterion=read_options(given, CriterionOptions),
        model=read_options(given, kind.model),
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


def _find_kind(task: str, arch: str) -> Kind:
    kind = KINDS.get((task, ARCHITECTURES[arch]))
    if kind is None:
        names = [name for name, family in ARCHITECTURES.items() if (task, family) in KINDS]
        raise UserError(f"{PROGRAM}: --arch {arch} is not for --task {task}; choose one of: {', '.join(names)}")
    return kind


def _refuse_foreign(given: argparse.Namespace, arch: str, chosen: Kind) -> None:
    """Refuses a given flag that only other tasks, families of models or optimizers have: it would do nothing."""
    for name in vars(given):  # in the order of the command line
        if name not in ("data", "task", "arch") and not _has(chosen, name):
            instead = OF_OTHER_TASKS.get(name)
            raise UserError(
                f"{PROGRAM}: {flag_of(name)} belongs to {_homes(name)}; this is --task {given.task} --arch {arch}"
                f"{f': {instead}' if instead else ''}"
            )
    optimizer = getattr(given, "optimizer", OptimisationOptions().optimizer)
    for owner, names in OWN_OPTIONS.items():
        for name in names:
            if owner != optimizer and hasattr(given, name):
                raise UserError(f"{PROGRAM}: {flag_of(name)} belongs to --optimizer {owner}, not {optimizer}")


def _has(kind: Kind, name: str) -> bool:
    return name not in kind.without and (name in _names(COMMON.values()) or name in _names(kind.groups))


def _homes(name: str) -> str:
    """The tasks that have an option: `--task translation`; with their architectures where not all of them do."""
    homes = []
    for task in DEFAULT_ARCH:
        families = {family: _has(kind, name) for (owner, family), kind in KINDS.items() if owner == task}
        archs = [arch for arch, family in ARCHITECTURES.items() if families.get(family, False)]
        if archs:
            homes.append(f"--task {task}" + ("" if all(families.values()) else f" --arch {' or '.join(archs)}"))
    return ", or ".join(homes)


def _names(groups: Iterable[type]) -> set[str]:
    return {field.name for options in groups for field in dataclasses.fields(options)}


def entry() -> None:
    """The console script."""
    sys.exit(run(main))
