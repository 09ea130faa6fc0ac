"""A model on held-out batches: loss, negative log-likelihood, and perplexity or accuracy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from seqba.tasks import Shards
from seqba.training.device import to_device
from seqba.training.metrics import readable
from seqba.training.trainer import Trainer


class Interrupted(Exception):
    """A signal asked to stop before the validation was through."""


def validate(trainer: Trainer[Any], batches: Shards[Any], should_stop: Callable[[], bool]) -> dict[str, float]:
    """Means over a split, without noise.

    Returns:
        loss: nats per weight (target token, sentence or image), with the label smoothing of training.
        The task's further means (`seqba.training.metrics`): nll, with ppl per token, or top1 and top5 of images.

    Raises:
        Interrupted: as soon as `should_stop()`.
    """
    loss_sum = weight_sum = 0.0
    count = 0
    sums: dict[str, float] = {}
    trainer.model.eval()
    with torch.no_grad():
        for number in range(len(batches)):
            if should_stop():
                raise Interrupted
            batch = batches[number]
            count += trainer.task.count(batch)
            loss, weight, extras = trainer.loss(trainer.model, to_device(batch, trainer.device))
            loss_sum += float(loss)
            for name, value in extras.items():
                sums[name] = sums.get(name, 0.0) + float(value)
            weight_sum += weight
    means = {name: value / count for name, value in sums.items()}
    return {"loss": loss_sum / weight_sum, **readable(means, trainer.task.unit)}
