"""What a command line says about a run, and the task and the model that come of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from seqba.checkpoints.file import model_options
from seqba.errors import UserError
from seqba.models.families import ARCHITECTURES, Family, family_of
from seqba.models.options import DecoderOptions, ImageClassifierOptions
from seqba.options import plain_options
from seqba.tasks import RunnableTask
from seqba.tasks.options import BatchOptions, CriterionOptions
from seqba.tasks.registry import VARIANTS, TaskVariant
from seqba.tasks.translation import BleuOptions
from seqba.training.arms import derive_grid
from seqba.training.options import TrainingOptions


@dataclass(frozen=True)
class Recipe:
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


def open_task(recipe: Recipe) -> tuple[RunnableTask, Any]:
    """The task on its data, and the configuration of the model for it.

    Raises:
        UserError: for data, sizes or options that don't fit together.
    """
    if isinstance(recipe.model, ImageClassifierOptions):
        _check_batch_norm(recipe, recipe.model)
    variant, seed = recipe.variant, recipe.training.grid.seed
    model = recipe.family.resolve(recipe.arch, variant.fit_model(recipe.task_options, recipe.model))
    task = variant.open(recipe.data, recipe.task_options, recipe.batches, recipe.criterion, seed, model)
    return task, model


def check_arm(recipe: Recipe) -> None:
    """Refuses an arm that would be another one under a dearer name.

    Raises:
        UserError: for large-batch where rows share nothing.
    """
    if recipe.training.grid.arm == "large-batch" and not recipe.family.rows_share:
        raise UserError(
            "--arm large-batch is for what the rows of a batch share (batch norm, weight masks), and a Transformer's "
            "share nothing: take --arm fixed-samples, which is the same there"
        )


def with_positions_of(state: Mapping[str, Any], recipe: Recipe) -> Recipe:
    """The recipe with the positions that a checkpoint's weights have learned, unless it names others.

    Checkpoints of older versions begin at 0; going on from one at 2 would move every word by two places.
    """
    if not isinstance(recipe.model, DecoderOptions) or recipe.model.first_position is not None:
        return recipe
    learned = model_options(state["cfg"]).get("first_position")
    if not isinstance(learned, int):
        return recipe  # of another kind of model, which `restore` refuses
    return replace(recipe, model=replace(recipe.model, first_position=learned))


def describe_task(recipe: Recipe) -> Mapping[str, Any]:
    """A checkpoint's cfg["task"]: name and options as plain values."""
    return {
        "name": recipe.task,
        "data": recipe.data,
        recipe.variant.group: plain_options(recipe.task_options),
        "batches": plain_options(recipe.batches),
        "criterion": plain_options(recipe.criterion),
    }


def _check_batch_norm(recipe: Recipe, model: ImageClassifierOptions) -> None:
    """Refuses what batch normalisation can't do."""
    grid = recipe.training.grid
    rows = derive_grid(grid).resized(recipe.batches).batch_size
    arm = "" if rows == recipe.batches.batch_size else f" (that of --arm {grid.arm} with --copies {grid.copies})"
    if recipe.training.optimisation.optimizer == "nt_asgd":
        raise UserError(
            "--optimizer nt_asgd averages weights, but not what batch normalisation has gathered under each of them: "
            "take sgd"
        )
    if rows == 1 or model.ghost_batch == 1:
        raise UserError(
            f"{f'--batch-size 1{arm}' if rows == 1 else '--ghost-batch 1'} leaves batch normalisation one image, which "
            "has no variance where a network has come to a single place: take at least 2"
        )
    if model.ghost_batch and rows and rows % model.ghost_batch:
        raise UserError(
            f"--ghost-batch {model.ghost_batch} must divide --batch-size {rows}{arm}, so that groups are the same in "
            "every plan"
        )
