"""A model on held-out batches: loss, negative log-likelihood, and perplexity or accuracy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from seqba.errors import UserError
from seqba.tasks import Shards
from seqba.training.device import to_device
from seqba.training.distributed import is_unread, whose
from seqba.training.metrics import readable
from seqba.training.trainer import Trainer


class Interrupted(Exception):
    """A signal asked to stop before the validation was through."""


def validate(trainer: Trainer[Any], batches: Shards[Any], should_stop: Callable[[], bool]) -> dict[str, float]:
    """Means over a split, without noise.

    Of several ranks each takes every so-manieth batch, unless the batches of a split go on from each other: then each
    takes them all. All have the same means, and all are interrupted if one is.

    Returns:
        loss: nats per weight (target token, sentence or image), with the label smoothing of training.
        The task's further means (`seqba.training.metrics`): nll, with ppl per token, or top1 and top5 of images.

    Raises:
        Interrupted: as soon as `should_stop()`.
        UserError: if a batch can't be read, here or on another rank.
    """
    sums = {"loss": 0.0, "weight": 0.0, "count": 0.0, "stopped": 0.0, "unread": 0.0}
    batch: Any = None
    is_divided = trainer.ranks is not None and trainer.task.carried is None
    first, step = (trainer.ranks.rank, trainer.ranks.size) if trainer.ranks is not None and is_divided else (0, 1)
    trainer.model.eval()
    with torch.no_grad():
        for number in range(first, len(batches), step):
            if should_stop():
                sums["stopped"] = 1.0
                break
            batch = _read(batches, number)
            if is_unread(batch):
                sums["unread"] = 1.0
                break
            loss, weight, extras = trainer.loss(trainer.model, to_device(batch, trainer.device))
            sums["weight"] += weight
            sums["count"] += trainer.task.count(batch)
            for name, value in {"loss": loss, **extras}.items():
                sums[name] = sums.get(name, 0.0) + float(value)
    if trainer.ranks is not None:
        sums = _merged(trainer.ranks.gather(sums), is_divided=is_divided)
    if sums.pop("unread"):
        raise whose(batch)
    if sums.pop("stopped"):
        raise Interrupted
    mean_loss, count = sums.pop("loss") / sums.pop("weight"), sums.pop("count")
    means = {name: value / count for name, value in sums.items()}
    return {"loss": mean_loss, **readable(means, trainer.task.unit)}


def _read(batches: Shards[Any], number: int) -> Any:
    """A batch, or why it can't be read."""
    try:
        return batches[number]
    except UserError as error:
        return error


def _merged(sums: Sequence[Mapping[str, float]], *, is_divided: bool) -> dict[str, float]:
    """The ranks' sums: added up where each had a part of the batches, anybody's where each had all of them."""
    merged: dict[str, float] = {} if is_divided else {**sums[0], "stopped": 0.0, "unread": 0.0}
    for each in sums:
        for name in each if is_divided else ("stopped", "unread"):
            merged[name] = merged.get(name, 0.0) + each[name]
    return merged
