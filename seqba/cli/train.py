"""`seqba-train`: a data-bin, or a folder of pictures → checkpoints."""

from __future__ import annotations

import dataclasses
import logging
import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from seqba.cli.arguments import Given, Parser, read_options
from seqba.cli.command import run_process
from seqba.cli.fairseq_options import without_effect_line
from seqba.cli.fairseq_train import ACCEPTED, OF_PICTURES, UNSUPPORTED, UNSUPPORTED_VALUES
from seqba.errors import UserError
from seqba.models.families import ARCHITECTURES, FAMILIES, family_of
from seqba.options import flag_of
from seqba.tasks.options import BatchOptions, CriterionOptions
from seqba.tasks.registry import TASKS, VARIANTS
from seqba.tasks.text_options import BleuOptions
from seqba.training.config import RunConfig
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
from seqba.training.options.optimisation import OWN_OPTIONS

logger = logging.getLogger(__name__)

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
    title: options
    for (_, family), variant in VARIANTS.items()
    for title, options in {**variant.groups, FAMILIES[family].title: FAMILIES[family].options}.items()
}
"""What some tasks and families of models have alone."""


def build_parser() -> Parser:
    """The command line of seqba-train."""
    parser = Parser(
        PROGRAM,
        "Trains a model with Batch Augmentation: every update sees each example --copies times, each time through its "
        "own noise. The same command resumes a run that was interrupted. Needed are --lr, and --max-tokens or "
        "--batch-size. --task and --arch decide which of the other options there are: --help shows those of the task "
        "and architecture that stand beside it, `--help all` those of every one.",
        unsupported=UNSUPPORTED,
        unsupported_values=UNSUPPORTED_VALUES,
        accepted=ACCEPTED,
    )
    parser.add_argument(
        "data",
        metavar="DATA[:DATA]",
        help="data-bin; several, separated by colons, take turns by epoch; for images a folder of pictures",
    )
    parser.add_argument(
        "--task", default="translation", choices=tuple(TASKS), help="what is learned (default: translation)"
    )
    names = "; ".join(f"for {task} {', '.join(_archs_of(task))}" for task in TASKS)
    defaults = ", ".join(f"{spec.default_arch} for {task}" for task, spec in TASKS.items())
    parser.add_argument(
        "--arch",
        "-a",
        choices=ARCHITECTURES,
        metavar="NAME",
        help=f"named sizes of a model: {names}, or timm:NAME (default: those of --finetune-from-model, else "
        f"{defaults})",
    )
    for title, options in {**COMMON, **SOME}.items():
        parser.add_options(options, title)
    return parser


def help_asked_for(arguments: Sequence[str], parser: Parser) -> str | None:
    """Help on the options of the task and architecture that a command line names; None where it asks for no help.

    Raises:
        UserError: for a task or an architecture that there is none of.
    """
    if not {"-h", "--help"} & set(arguments):
        return None
    chosen = Parser(PROGRAM, "", unsupported_values=UNSUPPORTED_VALUES)
    chosen.add_argument("--task", default="translation", choices=tuple(TASKS))
    chosen.add_argument("--arch", "-a", choices=ARCHITECTURES)
    others = [word for word in arguments if word not in ("-h", "--help")]
    named, words = chosen.parse_known_args(others, Given())
    if words[:1] == ["all"] or words[-1:] == ["all"]:
        return parser.format_help()
    arch = named.arch or TASKS[named.task].default_arch
    _check_arch(named.task, arch)
    own = {"help", "config", "task", "arch"}
    return parser.help_of(lambda name: name in own or _has(named.task, ARCHITECTURES[arch], name))


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains; returns 0, or 128 + the number of the signal that asked to stop (143 for SIGTERM).

    Raises:
        UserError: for what the user can mend.
    """
    first = int(os.environ.get("RANK", "0")) == 0
    logging.basicConfig(level=logging.INFO if first else logging.ERROR, format="%(message)s", stream=sys.stderr)
    parser = build_parser()
    shown = help_asked_for(sys.argv[1:] if arguments is None else arguments, parser)
    if shown is not None:
        print(shown, end="")
        parser.exit()
    given = parser.parse(arguments)
    config = read_config(given)
    from seqba.training.run import train  # brings torch, for which --help and a mistake need not wait

    if given.without_effect:
        logger.info("%s", without_effect_line(given.without_effect))
    return train(config)


def read_config(given: Given) -> RunConfig:
    """Configuration of the run that a parsed command line asks for.

    Options of pictures that fairseq has for text are added to `given.without_effect`.

    Raises:
        UserError: for an option that the task or the architecture doesn't have, or a value out of range.
    """
    arch = given.arch or TASKS[given.task].default_arch
    _check_arch(given.task, arch)
    _refuse_foreign(given, arch)
    model = read_options(given, family_of(arch).options)
    _refuse_switched_off(given, arch, model)
    return RunConfig(
        task=given.task,
        data=given.data,
        arch=arch,
        task_options=read_options(given, VARIANTS[given.task, ARCHITECTURES[arch]].options),
        batches=read_options(given, BatchOptions),
        criterion=read_options(given, CriterionOptions),
        model=model,
        bleu=read_options(given, BleuOptions),
        training=TrainingOptions(
            grid=_read_grid(given),
            optimisation=read_options(given, OptimisationOptions),
            schedule=read_options(given, ScheduleOptions),
            run=read_options(given, RunOptions),
            validation=read_options(given, ValidationOptions),
            checkpoints=read_options(given, CheckpointOptions),
            log=read_options(given, LogOptions),
        ),
        names_arch=given.arch is not None,
    )


def _read_grid(given: Given) -> GridOptions:
    """Grid of the command line, which has other defaults where the loss compares copies."""
    grid = read_options(given, GridOptions)
    return grid.with_compared_copies(vars(given)) if read_options(given, CriterionOptions).compares_copies else grid


def _check_arch(task: str, arch: str) -> None:
    """Refuses an architecture that can't do the task."""
    if ARCHITECTURES[arch] not in TASKS[task].variants:
        names = ", ".join(_archs_of(task))
        raise UserError(f"{PROGRAM}: --arch {arch} is not for --task {task}; choose one of: {names}")


def _archs_of(task: str) -> list[str]:
    """The architectures that can do a task."""
    return [name for name, family in ARCHITECTURES.items() if family in TASKS[task].variants]


def _refuse_foreign(given: Given, arch: str) -> None:
    """Refuses a given flag that only other tasks, families of models or optimizers have: it would do nothing."""
    for name in vars(given):  # in the order of the command line
        if name not in ("data", "task", "arch") and not _has(given.task, ARCHITECTURES[arch], name):
            if name in OF_PICTURES:
                given.without_effect.append(flag_of(name))
                continue
            raise UserError(
                f"{PROGRAM}: {flag_of(name)}{given.where(name)} belongs to {_homes(name)}; this is --task {given.task} "
                f"--arch {arch}"
            )
    optimizer = getattr(given, "optimizer", OptimisationOptions().optimizer)
    for owner, names in OWN_OPTIONS.items():
        for name in names:
            if owner != optimizer and hasattr(given, name):
                raise UserError(
                    f"{PROGRAM}: {flag_of(name)}{given.where(name)} belongs to --optimizer {owner}, not {optimizer}"
                )


def _refuse_switched_off(given: Given, arch: str, model: Any) -> None:
    """Refuses to switch off what an architecture has by its name."""
    resolved = family_of(arch).resolve(arch, model)
    for field in dataclasses.fields(model):
        if getattr(given, field.name, None) is False and getattr(resolved, field.name):
            raise UserError(
                f"{PROGRAM}: {flag_of(field.name)} can't be switched off{given.where(field.name)}: --arch {arch} has "
                "it; choose another architecture"
            )


def _has(task: str, family: str, name: str) -> bool:
    """Whether a task has an option, done by this family of models."""
    variant = VARIANTS[task, family]
    groups = (*COMMON.values(), *variant.groups.values(), FAMILIES[family].options)
    return name not in variant.excluded_options and name in _names(groups)


def _homes(name: str) -> str:
    """The tasks that have an option: `--task translation`; with their architectures where not all of them do."""
    homes = []
    for task, spec in TASKS.items():
        families = {family: _has(task, family, name) for family in spec.variants}
        archs = [_sizes(family) for family, has in families.items() if has]
        if archs:
            homes.append(f"--task {task}" + ("" if all(families.values()) else f" --arch {' or '.join(archs)}"))
    return ", or ".join(homes)


def _sizes(family: str) -> str:
    """The first architecture of a family, which stands for its other sizes."""
    first, *others = FAMILIES[family].architectures
    return f"{first} (or another size of it)" if others else first


def _names(groups: Iterable[type]) -> set[str]:
    return {field.name for options in groups for field in dataclasses.fields(options)}


def entry() -> None:
    """The `seqba-train` command."""
    run_process(main)
