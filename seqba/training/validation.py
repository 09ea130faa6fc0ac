"""Validation of a model on held-out batches: loss, negative log-likelihood, and perplexity or accuracy."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from seqba.distributed.batch_broadcast import read_or_error
from seqba.errors import UserError
from seqba.runtime.devices import to_device
from seqba.tasks import MicroBatches
from seqba.training.agreement import Status
from seqba.training.totals import Totals
from seqba.training.trainer import Trainer


def validate(trainer: Trainer[Any], batches: MicroBatches[Any], should_stop: Callable[[], bool]) -> dict[str, float]:
    """Means over a split, without noise.

    Of several ranks each takes every R-th batch, unless the batches of a split go on from each other: then each
    takes them all. All have the same means, and all are interrupted if one is. Where parameters are sharded, all go
    from batch to batch together: one that has none left tries another for nothing, and they agree on whether to stop.

    Returns:
        loss: nats per weight (target token, sentence or image), with the label smoothing of training.
        The task's further means (`seqba.training.metrics`): nll, with ppl per token, or top1 and top5 of images.

    Raises:
        Interrupted: as soon as `should_stop()`.
        UserError: if a batch can't be read, here or on another rank.
    """
    totals, status = Totals(), Status()
    batch: Any = None
    is_divided = trainer.task.carried is None
    first, step = (trainer.ranks.rank, trainer.ranks.size) if is_divided else (0, 1)
    trainer.model.eval()
    with torch.no_grad():
        for start in range(0, len(batches), step):
            number = start + first
            is_idle = number >= len(batches)
            if is_idle and not trainer.optimisation.is_sharded:
                break
            batch = read_or_error(partial(batches.__getitem__, 0 if is_idle else number))
            status = Status(should_stop(), isinstance(batch, UserError))
            if trainer.optimisation.is_sharded:  # the others can't go on without this rank
                status = status.over(trainer.ranks, trainer.device)
            if status.stop or status.unreadable:
                break
            loss, weight, extras = trainer.loss(trainer.model, to_device(batch, trainer.device))
            if is_idle:
                break
            totals.add(loss, weight, trainer.task.count(batch), extras)
    parts = trainer.ranks.gather((totals, status))
    Status.merged([own for _, own in parts]).raise_if_ended(batch)
    whole = Totals()
    whole.add_all([own for own, _ in (parts if is_divided else parts[:1])])
    return whole.metrics(trainer.task.unit)
