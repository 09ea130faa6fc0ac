"""Options of a training run, a file for each noun.

Names, meanings and defaults are fairseq's unless a line says otherwise, so that a fairseq command line means here what
it meant there.
"""

from __future__ import annotations

from dataclasses import dataclass

from seqba.training.options.checkpoints import CheckpointOptions
from seqba.training.options.grid import GridOptions
from seqba.training.options.log import LogOptions
from seqba.training.options.optimisation import OptimisationOptions
from seqba.training.options.run import RunOptions, ValidationOptions
from seqba.training.options.schedule import ScheduleOptions

__all__ = [
    "CheckpointOptions",
    "GridOptions",
    "LogOptions",
    "OptimisationOptions",
    "RunOptions",
    "ScheduleOptions",
    "TrainingOptions",
    "ValidationOptions",
]


@dataclass(frozen=True)
class TrainingOptions:
    """All options of a run but those of its task and model."""

    grid: GridOptions
    optimisation: OptimisationOptions
    schedule: ScheduleOptions
    run: RunOptions
    validation: ValidationOptions
    checkpoints: CheckpointOptions
    log: LogOptions
