"""Trainers of the smallest task, and their updates."""

from __future__ import annotations

from typing import Any

import torch
from sums import Line, Rows, SquaresTask

from seqba.training.batches import UpdateBatch
from seqba.training.optimisation import Optimisation
from seqba.training.trainer import Trainer, UpdateRules
from seqba.training.update_report import UpdateReport


def make_trainer(
    task: SquaresTask, model: Line, lr: float = 0.1, clip_norm: float = 0.0, **rules: Any
) -> Trainer[Rows]:
    optimizer = torch.optim.SGD(model.parameters(), lr=123.0)
    optimisation = Optimisation(model, optimizer, lambda update: lr / update, clip_norm=clip_norm)
    values: dict[str, Any] = {"copies": 1, "plan": "stacked", "seed": 1, **rules}
    return Trainer(task, optimisation, UpdateRules(**values))


def update(trainer: Trainer[Rows], micro_batches: list[Rows], *more: Any) -> UpdateReport:
    return trainer.update(UpdateBatch.of(micro_batches, trainer.rules.copies), *more)
