"""Ensemble of models."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from seqba.decoding.step_model import StepModel


class Ensemble:
    """Averages the models' probabilities; a `StepModel` itself.

    log p(y) = log 1/n Σ_i softmax(logits_i / temperature)(y)

    With one model this is the model. The arithmetic mean is what fairseq takes.

    Args:
        models: at least one; all with the same vocabulary.
        temperature: divides logits before the softmax; above 1 evens the distribution out.

    Raises:
        ValueError: if there is no model.
    """

    def __init__(self, models: Sequence[StepModel], *, temperature: float = 1.0) -> None:
        if not models:
            raise ValueError("an ensemble needs at least one model")
        self.models = tuple(models)
        self.temperature = temperature
        self.max_target_positions = min(model.max_target_positions for model in models)

    def begin(self, source: Tensor, beam_size: int) -> list[Any]:
        """One state per model."""
        return [model.begin(source, beam_size) for model in self.models]

    def step(self, state: list[Any], tokens: Tensor) -> Tensor:
        """Logits of the one model, or log-probabilities of the ensemble: (B, K, V)."""
        logits = [model.step(own, tokens) for model, own in zip(self.models, state, strict=True)]
        if self.temperature != 1.0:
            logits = [each / self.temperature for each in logits]
        return average_log_probs(logits) if len(logits) > 1 else logits[0]

    def reorder(self, state: list[Any], sentences: Tensor, parents: Tensor) -> None:
        """Reorders every model's state."""
        for model, own in zip(self.models, state, strict=True):
            model.reorder(own, sentences, parents)


def average_log_probs(logits: Sequence[Tensor]) -> Tensor:
    """Log of the mean of the softmaxes over the last dimension, same shape as each of `logits`."""
    stacked = torch.stack([torch.log_softmax(each, dim=-1) for each in logits])
    return torch.logsumexp(stacked, dim=0) - math.log(len(logits))
