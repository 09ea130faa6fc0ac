"""Constraints on the next token: log-probabilities set to -inf, in place."""

from __future__ import annotations

import torch
from torch import Tensor

from seqba.decoding.options import SearchOptions
from seqba.decoding.step_model import BOS, EOS, PAD, UNK

FREE = -1
"""In a column of forced tokens: this sentence may choose."""


def forbid_specials(log_probs: Tensor) -> None:
    """Forbids padding and the beginning of sentence. `log_probs` is (B, K, V)."""
    log_probs[:, :, PAD] = -torch.inf
    log_probs[:, :, BOS] = -torch.inf


def forbid_repeats(log_probs: Tensor, history: Tensor, size: int) -> None:
    """Forbids every token that would make an n-gram which the hypothesis already has.

    Args:
        log_probs: (B, K, V), changed in place.
        history: (B, K, t) int64, the tokens so far (without the end of sentence that starts the decoder).
        size: n.
    """
    if history.size(2) < size:
        return
    grams = history.unfold(2, size, 1)  # (B, K, t-n+1, n)
    ending = history[:, :, history.size(2) - size + 1 :].unsqueeze(2)  # the last n-1 tokens
    repeats = (grams[..., :-1] == ending).all(dim=3)
    # Padding is forbidden anyway: the harmless place for "nothing to forbid here".
    log_probs.scatter_(2, torch.where(repeats, grams[..., -1], PAD), -torch.inf)


def forced_tokens(step: int, max_lengths: Tensor, prefix: Tensor | None) -> Tensor:
    """Token that each sentence must take now: the prefix's, or the end at its greatest length.

    Args:
        step: tokens that hypotheses have already.
        max_lengths: (B,) int64, end of sentence not counted.
        prefix: (B, P) int64, right-padded, or None.

    Returns:
        (B,) int64 tokens, `FREE` where the search may choose.
    """
    forced = torch.full_like(max_lengths, FREE)
    if prefix is not None and step < prefix.size(1):
        column = prefix[:, step]
        forced = torch.where(column == PAD, forced, column)
    return torch.where(step >= max_lengths, EOS, forced)


def constrain(log_probs: Tensor, history: Tensor, forced: Tensor, options: SearchOptions) -> None:
    """Applies every constraint of the options to the next token.

    A forced token keeps its own log-probability, whatever else would forbid it.

    Args:
        log_probs: (B, K, V) float, changed in place.
        history: (B, K, t) int64, the tokens so far.
        forced: (B,) int64, from `forced_tokens`.
        options: unknown-word penalty, least length, n-gram size.
    """
    if options.unkpen:
        log_probs[:, :, UNK] -= options.unkpen
    rows = (forced != FREE).nonzero().squeeze(1)
    kept = log_probs[rows, :, forced[rows]]  # (rows, K)
    forbid_specials(log_probs)
    if history.size(2) < options.min_len:
        log_probs[:, :, EOS] = -torch.inf
    if options.no_repeat_ngram_size:
        forbid_repeats(log_probs, history, options.no_repeat_ngram_size)
    if rows.numel():
        log_probs.index_fill_(0, rows, -torch.inf)
        log_probs[rows, :, forced[rows]] = kept
