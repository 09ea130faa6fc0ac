"""What a command line says about a run, and the task and the model that come of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from seqba.checkpoints.file import model_options
from seqba.errors import UserError
from seqba.models.architectures import (
    Family,
    resolve_awd_lstm,
    resolve_image_classifier,
    resolve_transformer,
    resolve_transformer_lm,
)
from seqba.models.options import (
    AWDLSTMOptions,
    DecoderOptions,
    ImageClassifierOptions,
    ModelOptions,
    TransformerLMOptions,
    TransformerOptions,
)
from seqba.options import plain_options
from seqba.tasks.image_classification import ImageClassification, ImageOptions
from seqba.tasks.language_modeling import BlockOptions, LanguageModeling
from seqba.tasks.options import BatchOptions, CriterionOptions
from seqba.tasks.streams import StreamLanguageModeling, StreamOptions
from seqba.tasks.translation import Translation, TranslationOptions
from seqba.training.bleu import BleuOptions
from seqba.training.options import TrainingOptions

TaskOptions = TranslationOptions | BlockOptions | StreamOptions | ImageOptions
RunnableTask = Translation | LanguageModeling | StreamLanguageModeling | ImageClassification


@dataclass(frozen=True)
class Kind:
    """What a task must be told where a certain family of models does it, beside what every run is told.

    Attributes:
        name: of the task's options, in a checkpoint's cfg["task"].
        task: the task's options.
        model: the family's options.
        others: further groups of options.
        without: options of every run that would do nothing here.
    """

    name: str
    task: type[TaskOptions]
    model: type[ModelOptions]
    others: tuple[type, ...] = ()
    without: tuple[str, ...] = ()

    @property
    def groups(self) -> tuple[type, ...]:
        """All option groups that only such runs have."""
        return (self.task, self.model, *self.others)


WITHOUT_PACKING = (
    "max_tokens",
    "max_tokens_valid",
    "required_batch_size_multiple",
    "skip_invalid_size_inputs_valid_test",
    "sentence_avg",
)
"""Running text is cut into --batch-size equal streams, and images are all of a size: nothing is packed, too long, or a
sentence."""

KINDS: dict[tuple[str, Family], Kind] = {
    ("translation", "transformer"): Kind("translation", TranslationOptions, TransformerOptions, (BleuOptions,)),
    ("language_modeling", "transformer_lm"): Kind("blocks", BlockOptions, TransformerLMOptions),
    ("language_modeling", "awd_lstm"): Kind("streams", StreamOptions, AWDLSTMOptions, without=WITHOUT_PACKING),
    ("image_classification", "image_classifier"): Kind(
        "images", ImageOptions, ImageClassifierOptions, without=WITHOUT_PACKING
    ),
}
"""Every task with every family of models that can do it."""

DEFAULT_ARCH = {
    "translation": "transformer_wmt_en_de",
    "language_modeling": "transformer_lm",
    "image_classification": "resnet44",
}
"""Every task, and its architecture where none is given."""


@dataclass(frozen=True)
class Recipe:
    """Everything that a command line says about a run.

    Attributes:
        task: its name.
        data: data-bin, or several separated by colons.
        arch: name of the architecture.
        task_options: the task's own, of the class that `KINDS` names.
        batches: how examples are grouped.
        criterion: what is minimised.
        model: what differs from the architecture, of the class that `KINDS` names.
        bleu: whether validation translates; only a translation's may.
        training: the rest.
    """

    task: str
    data: str
    arch: str
    task_options: TaskOptions
    batches: BatchOptions
    criterion: CriterionOptions
    model: ModelOptions
    bleu: BleuOptions
    training: TrainingOptions


def open_task(recipe: Recipe) -> tuple[RunnableTask, ModelOptions]:
    """The task on its data, and the resolved options of the model for it.

    Raises:
        UserError: for data, sizes or options that don't fit together.
    """
    if isinstance(recipe.task_options, TranslationOptions) and isinstance(recipe.model, TransformerOptions):
        return _open_translation(recipe, recipe.task_options, resolve_transformer(recipe.arch, recipe.model))
    if isinstance(recipe.task_options, StreamOptions) and isinstance(recipe.model, AWDLSTMOptions):
        return _open_streams(recipe, recipe.task_options), resolve_awd_lstm(recipe.arch, recipe.model)
    if isinstance(recipe.task_options, BlockOptions) and isinstance(recipe.model, TransformerLMOptions):
        longest = recipe.task_options.longest_row
        model = resolve_transformer_lm(recipe.arch, recipe.model, longest=longest)
        return _open_language_modeling(recipe, recipe.task_options, model)
    if isinstance(recipe.task_options, ImageOptions) and isinstance(recipe.model, ImageClassifierOptions):
        return _open_images(recipe, recipe.task_options), resolve_image_classifier(recipe.arch, recipe.model)
    raise ValueError(f"no kind of run has {type(recipe.task_options).__name__} and {type(recipe.model).__name__}")


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
    (name,) = (kind.name for kind in KINDS.values() if isinstance(recipe.task_options, kind.task))
    return {
        "name": recipe.task,
        "data": recipe.data,
        name: plain_options(recipe.task_options),
        "batches": plain_options(recipe.batches),
        "criterion": plain_options(recipe.criterion),
    }


def _open_translation(
    recipe: Recipe, options: TranslationOptions, model: TransformerOptions
) -> tuple[Translation, TransformerOptions]:
    if model.max_source_positions is None or model.max_target_positions is None:
        raise ValueError("a resolved architecture has its positions")
    task = Translation(
        recipe.data,
        options,
        recipe.batches,
        recipe.criterion,
        seed=recipe.training.grid.seed,
        max_source_positions=model.max_source_positions,
        max_target_positions=model.max_target_positions,
    )
    if model.share_all_embeddings and task.source_dictionary != task.target_dictionary:
        raise UserError(
            "--share-all-embeddings needs a joined dictionary, but those of source and target differ: preprocess with "
            "--joined-dictionary"
        )
    return task, model


def _open_streams(recipe: Recipe, options: StreamOptions) -> StreamLanguageModeling:
    return StreamLanguageModeling(
        recipe.data, options, recipe.batches, recipe.criterion, seed=recipe.training.grid.seed
    )


def _open_images(recipe: Recipe, options: ImageOptions) -> ImageClassification:
    return ImageClassification(recipe.data, options, recipe.batches, recipe.criterion, seed=recipe.training.grid.seed)


def _open_language_modeling(
    recipe: Recipe, options: BlockOptions, model: TransformerLMOptions
) -> tuple[LanguageModeling, TransformerLMOptions]:
    if model.max_target_positions is None:
        raise ValueError("a resolved architecture has its positions")
    task = LanguageModeling(
        recipe.data,
        options,
        recipe.batches,
        recipe.criterion,
        seed=recipe.training.grid.seed,
        max_positions=model.max_target_positions,
    )
    return task, model
