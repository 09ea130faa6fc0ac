"""What opens a task on its data, for every variant of the registry."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from seqba.errors import UserError
from seqba.tasks import RunnableTask
from seqba.tasks.image_classification import ImageClassification
from seqba.tasks.language_modeling import LanguageModeling
from seqba.tasks.options import BatchOptions, CriterionOptions
from seqba.tasks.registry import TaskVariant
from seqba.tasks.text_options import TranslationOptions
from seqba.tasks.token_streams import StreamLanguageModeling
from seqba.tasks.translation import Translation

Opener = Callable[[str, Any, BatchOptions, CriterionOptions, int, Any], RunnableTask]
"""(data, the task's own options, batches, criterion, seed, configuration of the model) → the task."""


def open_task(
    variant: TaskVariant[Any],
    data: str,
    options: Any,
    batches: BatchOptions,
    criterion: CriterionOptions,
    seed: int,
    model: Any,
) -> RunnableTask:
    """Opens a task on its data.

    Args:
        variant: the task, as a family of models does it.
        data: data-bin, or a folder of pictures.
        options: of the class that the variant names.
        batches: how examples are grouped.
        criterion: what is minimised.
        seed: of the order.
        model: configuration of the model.

    Raises:
        UserError: for data that are missing, broken, or don't fit the model.
    """
    return OPENERS[variant.group](data, options, batches, criterion, seed, model)


class _PairModel(Protocol):
    """Interface of a model's configuration to translation."""

    @property
    def max_source_positions(self) -> int: ...
    @property
    def max_target_positions(self) -> int: ...
    @property
    def share_all_embeddings(self) -> bool: ...


def _open_translation(
    data: str,
    options: TranslationOptions,
    batches: BatchOptions,
    criterion: CriterionOptions,
    seed: int,
    model: _PairModel,
) -> Translation:
    task = Translation(
        data,
        options,
        batches,
        criterion,
        seed=seed,
        max_positions=(model.max_source_positions, model.max_target_positions),
    )
    if model.share_all_embeddings and task.source_dictionary != task.target_dictionary:
        raise UserError(
            "--share-all-embeddings needs a joined dictionary, but those of source and target differ: preprocess with "
            "--joined-dictionary"
        )
    return task


OPENERS: dict[str, Opener] = {
    "translation": _open_translation,
    "blocks": lambda data, options, batches, criterion, seed, model: LanguageModeling(
        data, options, batches, criterion, seed=seed, max_positions=model.max_target_positions
    ),
    "streams": lambda data, options, batches, criterion, seed, _: StreamLanguageModeling(
        data, options, batches, criterion, seed=seed
    ),
    "images": lambda data, options, batches, criterion, seed, _: ImageClassification(
        data, options, batches, criterion, seed=seed
    ),
}
"""The opener of every variant, by its group of options."""
