"""A model on held-out batches: loss, negative log-likelihood, and perplexity or accuracy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch

from seqba.tasks import Shards
from seqba.training.device import to_device
from seqba.training.distributed import attempted, is_unread, summed, whose
from seqba.training.metrics import readable
from seqba.training.trainer import Trainer


class Interrupted(Exception):
    """A signal asked to stop before the validation was through."""


def validate(trainer: Trainer[Any], batches: Shards[Any], should_stop: Callable[[], bool]) -> dict[str, float]:
    """Means over a split, without noise.

    Of several ranks each takes every so-manieth batch, unless the batches of a split go on from each other: then each
    takes them all. All have the same means, and all are interrupted if one is. Where parameters are sharded, all go
    from batch to batch together: one that has none left tries another for nothing, and they agree on whether to stop.

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
        for start in range(0, len(batches), step):
            number = start + first
            is_idle = number >= len(batches)
            if is_idle and not trainer.is_sharded:
                break
            batch = attempted(partial(batches.__getitem__, 0 if is_idle else number))
            ends = _agreed(trainer, {"stopped": float(should_stop()), "unread": is_unread(batch)})
            if any(ends.values()):
                sums |= ends
                break
            loss, weight, extras = trainer.loss(trainer.model, to_device(batch, trainer.device))
            if is_idle:
                break
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


def _agreed(trainer: Trainer[Any], ends: dict[str, float]) -> dict[str, float]:
    """Reasons to end here: with sharded parameters those of any rank, as the others can't go on without it."""
    if not trainer.is_sharded:
        return ends
    return dict(zip(ends, summed(trainer.ranks, [*ends.values()], trainer.device), strict=True))


def _merged(sums: Sequence[Mapping[str, float]], *, is_divided: bool) -> dict[str, float]:
    """The ranks' sums: added up where each had a part of the batches, anybody's where each had all of them."""
    merged: dict[str, float] = {} if is_divided else {**sums[0], "stopped": 0.0, "unread": 0.0}
    for each in sums:
        for name in each if is_divided else ("stopped", "unread"):
            merged[name] = merged.get(name, 0.0) + each[name]
    return merged
