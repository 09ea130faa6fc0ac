"""Workload of a run: a task on its data, and the model for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from seqba.checkpoints.file import model_options
from seqba.checkpoints.model import build_model
from seqba.core import Group
from seqba.data.mixing import read_weights, weights_path
from seqba.data.names import split_paths
from seqba.errors import UserError
from seqba.models.families import ARCHITECTURES, given_options
from seqba.models.options import DecoderOptions
from seqba.options import plain_options
from seqba.tasks import Task
from seqba.tasks.opening import open_task
from seqba.tasks.options import BatchOptions
from seqba.tasks.text_options import BleuOptions
from seqba.tasks.translation import Translation
from seqba.training.arms import derive_grid
from seqba.training.bleu_validation import BleuScorer
from seqba.training.config import RunConfig
from seqba.training.loop import ExtraMetrics
from seqba.training.record import RunRecord
from seqba.training.start import Start


@dataclass(frozen=True)
class Workload:
    """Data, model and loss of a run; the training loop knows of them only what is here.

    Attributes:
        record: identity of the run, with its options.
        task: gives the batches of this arm, and the loss.
        baseline: the task with the batches of the arm baseline, in whose epochs options count.
        batches: size of this arm's micro-batches, and the validation splits.
        build_model: makes the model with new weights, drawn from torch's global generator, on the CPU.
        width: of the model's embedding; None for a model without one.
        compares_copies: whether the loss of a copy depends on the others.
        extra_metrics: the ranks → further metrics of a validation; None for none.
    """

    record: RunRecord
    task: Task[Any]
    baseline: Task[Any]
    batches: BatchOptions
    build_model: Callable[[], nn.Module]
    width: int | None
    compares_copies: bool = False
    extra_metrics: Callable[[Group], ExtraMetrics] | None = None


def open_workload(config: RunConfig, start: Start | None) -> Workload:
    """Opens the data of a run, and resolves the sizes of its model.

    Args:
        config: the options of the run.
        start: the checkpoint that the run begins with; None for new weights.

    Raises:
        UserError: for data, sizes or options that don't fit together.
    """
    config = _with_weights_of_data(config)
    if start is not None:
        config = _with_positions_of(start.state, config)
    variant, family, training = config.variant, config.family, config.training
    arch, model = _resolve_model(config, start)
    baseline = open_task(
        variant, config.data, config.task_options, config.batches, config.criterion, training.grid.seed, model
    )
    grid = derive_grid(training.grid)
    task = baseline if grid.batch_scale == 1 else baseline.resized(grid.resized(config.batches))
    record = RunRecord(
        task=_task_record(config),
        arch=arch,
        model=plain_options(model),
        training=training,
        task_state=baseline.state(),
        fingerprints={split: baseline.fingerprint(split) for split in _splits(config)},
    )
    extra_metrics = None
    if isinstance(task, Translation) and config.bleu.eval_bleu:
        extra_metrics = partial(BleuScorer, task, config.bleu)
    return Workload(
        record=record,
        task=task,
        baseline=baseline,
        batches=task.batches,
        build_model=partial(build_model, {"arch": record.arch, "options": record.model}, record.task_state),
        width=family.width(model),
        compares_copies=config.criterion.compares_copies,
        extra_metrics=extra_metrics,
    )


def _splits(config: RunConfig) -> Iterator[str]:
    """Names of the splits that a run reads."""
    yield config.batches.train_subset
    if not config.training.validation.disable_validation:
        yield from filter(None, config.batches.valid_subset.split(","))


def _with_weights_of_data(config: RunConfig) -> RunConfig:
    """The configuration with the weights that seqba-preprocess wrote beside the texts, unless it names others."""
    if config.batches.weights:
        return config
    path = weights_path(Path(next(iter(split_paths(config.data)), "")), config.batches.train_subset)
    weights = read_weights(path)
    if weights and "weights" in config.variant.excluded_options:
        raise UserError(
            f"{path} mixes texts by weights, which --arch {config.arch} can't: it runs through all of them, one after "
            "the other; preprocess them without --weights"
        )
    return replace(config, batches=replace(config.batches, weights=weights))


def _with_positions_of(state: Mapping[str, Any], config: RunConfig) -> RunConfig:
    """The configuration with the positions that a checkpoint's weights have learned, unless it names others.

    Checkpoints of older versions begin at 0; going on from one at 2 would move every word by two places.
    """
    if not isinstance(config.model, DecoderOptions) or config.model.first_position is not None:
        return config
    learned = model_options(state["cfg"]).get("first_position")
    if not isinstance(learned, int):
        return config  # of another kind of model, which `restore` refuses
    return replace(config, model=replace(config.model, first_position=learned))


def _resolve_model(config: RunConfig, start: Start | None) -> tuple[str, Any]:
    """Architecture and configuration of the model: as the command line says, or as the model that is fine-tuned.

    The latter where the command line names none; what else it says of the model (dropout, say) goes before.
    """
    own = config.family.resolve(config.arch, config.variant.fit_model(config.task_options, config.model))
    if start is None or config.names_arch or config.training.checkpoints.finetune_from_model is None:
        return config.arch, own
    arch = start.state["cfg"]["model"].get("arch")
    if ARCHITECTURES.get(arch) != ARCHITECTURES[config.arch]:
        return config.arch, own  # a model for another task, which `restore` refuses
    try:
        return arch, replace(config.family.read(model_options(start.state["cfg"])), **given_options(config.model))
    except (TypeError, UserError) as error:  # a damaged file may say anything
        raise UserError(f"checkpoint {start.path} describes no model that can be fine-tuned: {error}") from None


def _task_record(config: RunConfig) -> Mapping[str, Any]:
    """A checkpoint's cfg["task"]: name and options as plain values."""
    return {
        "name": config.task,
        "data": config.data,
        config.variant.group: plain_options(config.task_options),
        "batches": plain_options(config.batches),
        "criterion": plain_options(config.criterion),
        **({"bleu": plain_options(config.bleu)} if BleuOptions in config.variant.more_options.values() else {}),
    }
