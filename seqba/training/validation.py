"""A model on held-out batches: loss, negative log-likelihood, and perplexity or accuracy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch

from seqba.distributed.batch_broadcast import attempted, is_unread, whose
from seqba.runtime.devices import to_device
from seqba.tasks import Shards
from seqba.training.agreement import summed
from seqba.training.totals import Totals
from seqba.training.trainer import Trainer


class Interrupted(Exception):
    """A signal asked to stop before the validation was through."""


class Ends(NamedTuple):
    """Reasons to end a validation early: on how many ranks each holds."""

    stopped: float = 0.0
    unread: float = 0.0


def validate(trainer: Trainer[Any], batches: Shards[Any], should_stop: Callable[[], bool]) -> dict[str, float]:
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
    totals, ends = Totals(), Ends()
    batch: Any = None
    is_divided = trainer.task.carried is None
    first, step = (trainer.ranks.rank, trainer.ranks.size) if is_divided else (0, 1)
    trainer.model.eval()
    with torch.no_grad():
        for start in range(0, len(batches), step):
            number = start + first
            is_idle = number >= len(batches)
            if is_idle and not trainer.is_sharded:
                break
            batch = attempted(partial(batches.__getitem__, 0 if is_idle else number))
            ends = _agreed(trainer, Ends(float(should_stop()), is_unread(batch)))
            if any(ends):
                break
            loss, weight, extras = trainer.loss(trainer.model, to_device(batch, trainer.device))
            if is_idle:
                break
            totals.add(loss, weight, trainer.task.count(batch), extras)
    totals, ends = _merged(trainer.ranks.gather((totals, ends)), is_divided=is_divided)
    if ends.unread:
        raise whose(batch)
    if ends.stopped:
        raise Interrupted
    return totals.metrics(trainer.task.unit)


def _agreed(trainer: Trainer[Any], ends: Ends) -> Ends:
    """Reasons to end here: with sharded parameters those of any rank, as the others can't go on without it."""
    return Ends(*summed(trainer.ranks, ends, trainer.device)) if trainer.is_sharded else ends


def _merged(parts: Sequence[tuple[Totals, Ends]], *, is_divided: bool) -> tuple[Totals, Ends]:
    """The ranks' sums: added up where each had a part of the batches, anybody's where each had all of them."""
    totals = Totals()
    totals.add_all([own for own, _ in parts][: None if is_divided else 1])
    return totals, Ends(*map(sum, zip(*(ends for _, ends in parts), strict=True)))
