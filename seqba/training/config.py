"""Configuration of a run: all that a command line says about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from seqba.models.families import ARCHITECTURES, Family, family_of
from seqba.tasks.options import BatchOptions, CriterionOptions
from seqba.tasks.registry import VARIANTS, TaskVariant
from seqba.tasks.text_options import BleuOptions
from seqba.training.options import TrainingOptions


@dataclass(frozen=True)
class RunConfig:
    """Everything that a command line says about a run; `validate_config` checks what depends on several of its options.

    Attributes:
        task: its name.
        data: data-bin, or several separated by colons.
        arch: name of the architecture.
        names_arch: whether the command line says it; a fine-tuned model's own is taken otherwise.
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
    names_arch: bool = True

    @property
    def family(self) -> Family[Any, Any]:
        """The family of the model."""
        return family_of(self.arch)

    @property
    def variant(self) -> TaskVariant[Any]:
        """The task as this family does it."""
        return VARIANTS[self.task, ARCHITECTURES[self.arch]]
