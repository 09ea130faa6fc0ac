"""Translations drawn at random, the same ones however sentences are batched."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from seqba.decoding.candidates import Candidates


def keyed_uniforms(seed: int, ids: Sequence[int], steps: int, beam_size: int) -> Tensor:
    """Uniform numbers keyed by (seed, sentence id), so that batching cannot change a draw.

    Returns:
        (B, steps, K) float64 in [0, 1): one number per sentence, step and hypothesis.
    """
    draws = [np.random.default_rng((seed, identifier)).random((steps, beam_size)) for identifier in ids]
    return torch.from_numpy(np.stack(draws))


def sample_candidates(log_probs: Tensor, totals: Tensor, uniforms: Tensor, *, topk: int, topp: float) -> Candidates:
    """Draws one continuation for each hypothesis, by inversion of the cumulated probabilities.

    Args:
        log_probs: (B, K, V) float, of the next token.
        totals: (B, K) float, summed log-probability so far; -inf for a hypothesis that has ended.
        uniforms: (B, K) float64 in [0, 1).
        topk: draw among this many likeliest tokens, if above 0.
        topp: draw among the fewest tokens that together hold this probability, if above 0.

    Returns:
        K candidates per sentence; scores add the token's own log-probability, not the renormalised one, as in fairseq.

    Source: Fan et al. 2018 (top-k); Holtzman et al. 2020 (top-p).
    """
    choices, words = _shortlist(log_probs, topk, topp)
    mass = choices.double().exp().cumsum(2)
    whole = mass[:, :, -1:]
    level = torch.minimum(uniforms.unsqueeze(2) * whole, torch.nextafter(whole, torch.zeros_like(whole)))
    column = torch.searchsorted(mass, level, right=True).clamp_(max=mass.size(2) - 1)
    tokens = column if words is None else words.gather(2, column)
    scores = totals + log_probs.gather(2, tokens).squeeze(2)
    parents = torch.arange(totals.size(1), device=totals.device).expand_as(totals)
    return Candidates(scores, tokens.squeeze(2), parents)


def _shortlist(log_probs: Tensor, topk: int, topp: float) -> tuple[Tensor, Tensor | None]:
    if topk > 0:
        best = log_probs.topk(min(topk, log_probs.size(2)))
        return best.values, best.indices
    if topp > 0:
        values, words = log_probs.sort(dim=2, descending=True)
        probabilities = values.exp()
        before = probabilities.cumsum(2) - probabilities
        # The likeliest token has nothing before it and always stays.
        return values.masked_fill(before >= topp, -torch.inf), words
    return log_probs, None
