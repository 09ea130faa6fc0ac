"""What a command line says about a run, and the task and the model that come of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from seqba.checkpoints.file import model_options
from seqba.models.families import ARCHITECTURES, Family, family_of
from seqba.models.options import DecoderOptions
from seqba.options import plain_options
from seqba.tasks import RunnableTask
from seqba.tasks.options import BatchOptions, CriterionOptions
from seqba.tasks.registry import VARIANTS, TaskVariant
from seqba.tasks.translation import BleuOptions
from seqba.training.options import TrainingOptions


@dataclass(frozen=True)
class RunConfig:
    """Everything that a command line says about a run.

    Attributes:
        task: its name.
        data: data-bin, or several separated by colons.
        arch: name of the architecture.
        task_options: the task's own, of the class that its variant names.
        batches: how examples are grouped.
        criterion: what is minimised.
        model: what differs from the architecture, of the class that its family names.
        bleu: whether validation translates; only a translation's may.
        training: the rest.
    """

    task: str
    data: str
    arch: str
    task_options: Any
    batches: BatchOptions
    criterion: CriterionOptions
    model: Any
    bleu: BleuOptions
    training: TrainingOptions

    @property
    def family(self) -> Family[Any, Any]:
        """The family of the model."""
        return family_of(self.arch)

    @property
    def variant(self) -> TaskVariant[Any]:
        """The task as this family does it."""
        return VARIANTS[self.task, ARCHITECTURES[self.arch]]


def open_task(config: RunConfig) -> tuple[RunnableTask, Any]:
    """The task on its data, and the configuration of the model for it.

    Raises:
        UserError: for data, sizes or options that don't fit together.
    """
    variant, seed = config.variant, config.training.grid.seed
    model = config.family.resolve(config.arch, variant.fit_model(config.task_options, config.model))
    task = variant.open(config.data, config.task_options, config.batches, config.criterion, seed, model)
    return task, model


def with_positions_of(state: Mapping[str, Any], config: RunConfig) -> RunConfig:
    """The config with the positions that a checkpoint's weights have learned, unless it names others.

    Checkpoints of older versions begin at 0; going on from one at 2 would move every word by two places.
    """
    if not isinstance(config.model, DecoderOptions) or config.model.first_position is not None:
        return config
    learned = model_options(state["cfg"]).get("first_position")
    if not isinstance(learned, int):
        return config  # of another kind of model, which `restore` refuses
    return replace(config, model=replace(config.model, first_position=learned))


def describe_task(config: RunConfig) -> Mapping[str, Any]:
    """A checkpoint's cfg["task"]: name and options as plain values."""
    return {
        "name": config.task,
        "data": config.data,
        config.variant.group: plain_options(config.task_options),
        "batches": plain_options(config.batches),
        "criterion": plain_options(config.criterion),
    }
