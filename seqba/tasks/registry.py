"""Tasks by name: the options of each, and its properties before it is opened.

A new task is a file of its own, one record here, and its opener in `seqba.tasks.opening`. Nothing here needs torch: a
command line is read, and refused, without waiting for it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from seqba.tasks.image_options import ImageOptions
from seqba.tasks.text_options import BleuOptions, BlockOptions, StreamOptions, TranslationOptions

Options = TypeVar("Options")


@dataclass(frozen=True)
class TaskVariant(Generic[Options]):
    """A task as a certain family of models does it.

    Attributes:
        group: name of the options in a checkpoint's cfg["task"], and of what opens it in `seqba.tasks.opening`.
        title: of the options on a command line.
        options: the task's own.
        more_options: further groups of options, by their titles.
        excluded_options: options of every run that would have no effect here.
        fit_model: (options, options of a model) → the latter, for this data where it is left open.
        update_defining: options that say what update u is made of: with others it would be another run.
        weight_moving: options that may change on the way, but then the weights are no longer those of one command.
        carries: whether copies carry a state from update to update.
    """

    group: str
    title: str
    options: type[Options]
    more_options: Mapping[str, type] = field(default_factory=dict)
    excluded_options: tuple[str, ...] = ()
    fit_model: Callable[[Options, Any], Any] = lambda _, model: model
    update_defining: tuple[str, ...] = ()
    weight_moving: tuple[str, ...] = ()
    carries: bool = False

    @property
    def groups(self) -> dict[str, type]:
        """All groups of options that only such runs have, by their titles."""
        return {self.title: self.options, **self.more_options}


@dataclass(frozen=True)
class TaskSpec:
    """Properties of a task before it is opened.

    Attributes:
        default_arch: the architecture where none is given.
        metrics: what its validation measures.
        reader: the command that evaluates its checkpoints.
        variants: by the families of models that can do it.
    """

    default_arch: str
    metrics: tuple[str, ...]
    reader: str
    variants: Mapping[str, TaskVariant[Any]]


def _with_room_for_blocks(options: BlockOptions, model: Any) -> Any:
    """A Transformer's options, with positions for the longest row where none are given."""
    return dataclasses.replace(model, max_target_positions=model.max_target_positions or options.longest_row)


NOTHING_PACKED = (
    "max_tokens",
    "max_tokens_valid",
    "required_batch_size_multiple",
    "skip_invalid_size_inputs_valid_test",
    "sentence_avg",
    "rdrop_alpha",
    "weights",
)
"""Options of packing. Running text is cut into --batch-size equal streams, and images are all of a size: no batch is
packed, no row too long, none is a sentence, and none comes twice in an epoch."""

TASKS: dict[str, TaskSpec] = {
    "translation": TaskSpec(
        default_arch="transformer_wmt_en_de",
        metrics=("loss", "nll", "ppl", "bleu"),
        reader="seqba-generate",
        variants={
            "transformer": TaskVariant(
                group="translation",
                title="translation",
                options=TranslationOptions,
                more_options={"BLEU in validation (translation)": BleuOptions},
                update_defining=("subword_sampling",),
            ),
        },
    ),
    "language_modeling": TaskSpec(
        default_arch="transformer_lm",
        metrics=("loss", "nll", "ppl"),
        reader="seqba-eval-lm",
        variants={
            "transformer_lm": TaskVariant(
                group="blocks",
                title="blocks of text (language_modeling)",
                options=BlockOptions,
                fit_model=_with_room_for_blocks,
                update_defining=("tokens_per_sample", "sample_break_mode", "add_bos_token"),
            ),
            "awd_lstm": TaskVariant(
                group="streams",
                title="running text (language_modeling)",
                options=StreamOptions,
                excluded_options=NOTHING_PACKED,
                update_defining=("bptt",),
                weight_moving=("activation_regularization", "temporal_activation_regularization"),
                carries=True,
            ),
        },
    ),
    "image_classification": TaskSpec(
        default_arch="resnet44",
        metrics=("loss", "nll", "top1", "top5"),
        reader="seqba-eval-image",
        variants={
            "image_classifier": TaskVariant(
                group="images",
                title="pictures and their views (image_classification)",
                options=ImageOptions,
                excluded_options=(*NOTHING_PACKED, "consistency"),
                update_defining=("hold_out",),
                weight_moving=(
                    "augmentation",
                    "crop_padding",
                    "cutout",
                    "colour_jitter",
                    "decode_size",
                    "mixup",
                    "manifold_mixup",
                    "mixup_lambda",
                ),
            ),
        },
    ),
}
"""Every task by its name."""

VARIANTS: dict[tuple[str, str], TaskVariant[Any]] = {
    (task, family): variant for task, spec in TASKS.items() for family, variant in spec.variants.items()
}
"""Every task with every family of models that can do it."""
