"""Workload of a run: a task on its data, and the model for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn

from seqba.checkpoints.model import build_model
from seqba.core import Group
from seqba.options import plain_options
from seqba.tasks import Task
from seqba.tasks.options import BatchOptions
from seqba.tasks.translation import Translation
from seqba.training.arms import derive_grid
from seqba.training.bleu_validation import BleuScorer
from seqba.training.config import RunConfig, describe_task, open_task, with_positions_of
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
        extra_metrics: the ranks → further metrics of a validation; None for none.
    """

    record: RunRecord
    task: Task[Any]
    baseline: Task[Any]
    batches: BatchOptions
    build_model: Callable[[], nn.Module]
    width: int | None
    extra_metrics: Callable[[Group], ExtraMetrics] | None = None


def open_workload(config: RunConfig, start: Start | None) -> Workload:
    """Opens the data that a config names, and resolves the sizes of its model.

    Args:
        config: what the command line says.
        start: the checkpoint that the run begins with; None for new weights.

    Raises:
        UserError: for data, sizes or options that don't fit together.
    """
    if start is not None:
        config = with_positions_of(start.state, config)
    grid = derive_grid(config.training.grid)
    baseline, model = open_task(config)
    task = baseline if grid.batch_scale == 1 else baseline.resized(grid.resized(config.batches))
    record = RunRecord(
        task=describe_task(config),
        arch=config.arch,
        model=plain_options(model),
        training=config.training,
        task_state=baseline.state(),
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
        width=config.family.width(model),
        extra_metrics=extra_metrics,
    )
