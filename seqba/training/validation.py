"""A model on held-out batches: loss, negative log-likelihood and perplexity."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from seqba.tasks import Shards
from seqba.training.device import to_device
from seqba.training.trainer import Trainer


class Interrupted(Exception):
    """A signal asked to stop before the validation was through."""


def validate(trainer: Trainer[Any], batches: Shards[Any], should_stop: Callable[[], bool]) -> dict[str, float]:
    """Means over a split, without noise.

    Returns:
        loss: nats per weight (target token, or sentence), with the label smoothing of training.
        nll: negative log-likelihood, nats per token.
        ppl: perplexity per token, exp(nll).

    Raises:
        Interrupted: as soon as `should_stop()`.
    """
    loss_sum = nll_sum = weight_sum = 0.0
    tokens = 0
    trainer.model.eval()
    with torch.no_grad():
        for number in range(len(batches)):
            if should_stop():
                raise Interrupted
            batch = batches[number]
            tokens += trainer.task.tokens(batch)
            loss, weight, extras = trainer.loss(trainer.model, to_device(batch, trainer.device))
            loss_sum += float(loss)
            nll_sum += float(extras["nll"])
            weight_sum += weight
    nll = nll_sum / tokens
    return {"loss": loss_sum / weight_sum, "nll": nll, "ppl": perplexity(nll)}


def perplexity(nll: float) -> float:
    """exp(nll) for nats per token; infinite where that overflows."""
    try:
        return math.exp(nll)
    except OverflowError:
        return math.inf
