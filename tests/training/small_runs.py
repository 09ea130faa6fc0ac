"""Runs of the smallest task, put together as `seqba.training.run` does it for translation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from sums import Line, SquaresTask

from seqba.training.arms import derive_grid
from seqba.training.folder import CheckpointFolder
from seqba.training.log import TrainingLog
from seqba.training.loop import TrainingLoop
from seqba.training.optimizers import build_optimizer, build_trigger
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
from seqba.training.progress import Progress
from seqba.training.record import RunRecord
from seqba.training.resume import restore
from seqba.training.schedules import build_schedule
from seqba.training.signals import StopSignal
from seqba.training.start import find_start
from seqba.training.trainer import Trainer, UpdateRules


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


def make_loop(options: TrainingOptions, task: SquaresTask | None = None, **parts: Any) -> TrainingLoop:
    """A loop that goes on from what is in its folder."""
    task = task or SquaresTask()
    grid = derive_grid(options.grid)
    model = Line(dropout=0.5)
    rules = UpdateRules(
        copies=grid.copies,
        plan=options.grid.plan,
        seed=options.grid.seed,
        clip_norm=options.optimisation.clip_norm,
        max_skipped_updates=options.optimisation.max_skipped_updates,
    )
    optimizer = build_optimizer(model.parameters(), options.optimisation)
    trigger = build_trigger(options.optimisation)
    trainer = Trainer(
        task, model, optimizer, build_schedule(options.schedule, width=4, epoch_updates=int), rules, trigger
    )
    record = make_record(options, task)
    start = find_start(options.checkpoints)
    progress = Progress() if start is None else restore(start, trainer, record)
    folder = CheckpointFolder(options.checkpoints)
    folder.prepare()
    log = TrainingLog(options.log, torch.device("cpu"))
    return TrainingLoop(task, trainer, grid, options, progress, record, folder, log, ["valid"], **parts)


class StopAfter(StopSignal):
    """Asks to stop once it has been looked at so many times."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self.looks = looks

    def is_set(self) -> bool:
        self.looks -= 1
        return self.looks < 0
