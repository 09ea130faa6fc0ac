"""Scores of given translations under a model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from seqba.decoding.hypothesis import Hypothesis, length_penalty
from seqba.decoding.options import SearchOptions
from seqba.decoding.step_model import PAD, check_sources
from seqba.nn.kernels.scores import target_log_probabilities


class ScoringModel(Protocol):
    """A model that reads a whole target at once; `seqba.models.transformer.Transformer` is one."""

    @property
    def output_weight(self) -> Tensor:
        """(V, D), the output projection."""
        ...

    @property
    def output_bias(self) -> Tensor | None:
        """(V,), its bias."""
        ...

    def features(self, source: Tensor, previous: Tensor) -> Tensor:
        """(N, D): hidden states of the positions of `previous` (B, T) that are not padding, row after row."""
        ...


@torch.inference_mode()
def score_references(
    models: Sequence[ScoringModel], source: Tensor, previous: Tensor, target: Tensor, options: SearchOptions
) -> list[Hypothesis]:
    """Scores each target as if the search had found it.

    Args:
        models: their probabilities are averaged, as in `Ensemble`.
        source: (B, L) int64, right-padded.
        previous: (B, T) int64, what the decoder reads: the end of sentence, then the target without its last token.
        target: (B, T) int64, right-padded.
        options: length penalty and temperature.

    Returns:
        One hypothesis per row, with the target's tokens.

    Raises:
        ValueError: for a source of padding alone.
    """
    check_sources(source)
    there = target != PAD
    scores = torch.zeros(target.shape, device=target.device)
    scores[there] = _log_probs(models, source, previous, target[there], options.temperature)
    hypotheses = []
    for words, parts, length in zip(target.tolist(), scores.tolist(), there.sum(1).tolist(), strict=True):
        penalty = 1.0 if options.unnormalized else length_penalty(length, options.lenpen, options.lenpen_form)
        own = tuple(parts[:length])
        hypotheses.append(Hypothesis(tuple(words[:length]), sum(own) / penalty, own))
    return hypotheses


def _log_probs(
    models: Sequence[ScoringModel], source: Tensor, previous: Tensor, words: Tensor, temperature: float
) -> Tensor:
    """Log of the models' mean probability of each of the N `words`, (N,)."""
    scores = [
        target_log_probabilities(
            model.features(source, previous),
            model.output_weight.detach(),
            words,
            bias=model.output_bias,
            temperature=temperature,
        )
        for model in models
    ]
    return torch.logsumexp(torch.stack(scores).float(), dim=0) - math.log(len(models))
