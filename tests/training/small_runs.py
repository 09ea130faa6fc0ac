"""Runs of the smallest task, put together as those of the command are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from sums import Line, SquaresTask

from seqba.tasks.options import BatchOptions
from seqba.training.assembly import assemble
from seqba.training.log import TrainingLog
from seqba.training.loop import ExtraMetrics, TrainingLoop
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
from seqba.training.record import RunRecord
from seqba.training.signals import StopSignal
from seqba.training.start import find_start
from seqba.training.workload import Workload

open_logs: list[TrainingLog] = []
"""Logs of the loops that a test has made; they are closed after it."""


def make_options(save_dir: Path, **changes: Any) -> TrainingOptions:
    """Options with some fields changed, whichever group they are in."""
    groups: dict[str, Any] = {
        "grid": GridOptions(copies=2, update_freq=(2,)),
        "optimisation": OptimisationOptions(),
        "schedule": ScheduleOptions(lr=0.05),
        "run": RunOptions(),
        "validation": ValidationOptions(),
        "checkpoints": CheckpointOptions(save_dir=str(save_dir)),
        "log": LogOptions(log_format="none"),
    }
    for name, value in changes.items():
        group = next(key for key, options in groups.items() if name in vars(options))
        groups[group] = replace(groups[group], **{name: value})
    return TrainingOptions(**groups)


def make_record(options: TrainingOptions, task: SquaresTask, **batches: Any) -> RunRecord:
    given = {"train_subset": "train", "max_tokens": 9, "batch_size": None, "required_batch_size_multiple": 8}
    groups = {
        "batches": {**given, **batches},
        "criterion": {"criterion": "squares", "label_smoothing": 0.0, "sentence_avg": False},
    }
    return RunRecord(groups, "line", {"width": 4, "dropout": 0.5}, options, task.state())


def make_loop(
    options: TrainingOptions, task: SquaresTask | None = None, extra_metrics: ExtraMetrics | None = None
) -> TrainingLoop:
    """A loop that goes on from what is in its folder."""
    task = task or SquaresTask()
    workload = Workload(
        record=make_record(options, task),
        task=task,
        baseline=task,
        batches=BatchOptions(max_tokens=9),
        build_model=lambda: Line(dropout=0.5),
        width=4,
        extra_metrics=None if extra_metrics is None else lambda ranks: extra_metrics,
    )
    loop = assemble(workload, find_start(options.checkpoints), torch.device("cpu"))
    open_logs.append(loop.log)
    return loop


class StopAfter(StopSignal):
    """Asks to stop once it has been looked at so many times."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self.looks = looks

    def is_set(self) -> bool:
        self.looks -= 1
        return self.looks < 0
