"""The best continuations of all hypotheses of a sentence, without sorting the vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

BLOCK = 64
"""Words per block. The k best of V words lie in the k blocks with the largest maxima: V/64 maxima are ranked, then
k·64 words, in place of V. Maxima are a vectorised pass; ranking is not."""


@dataclass(frozen=True)
class Candidates:
    """C continuations per sentence, best first."""

    scores: Tensor
    """(B, C) float: summed log-probability up to and including the new token; -inf where there is none."""

    tokens: Tensor
    """(B, C) int64: the new token."""

    parents: Tensor
    """(B, C) int64: the hypothesis that it continues, in 0..K-1."""

    @staticmethod
    def joined(parts: Sequence[Candidates]) -> Candidates:
        """Those of several groups of sentences, one group after the other."""
        if len(parts) == 1:
            return parts[0]
        return Candidates(
            torch.cat([part.scores for part in parts]),
            torch.cat([part.tokens for part in parts]),
            torch.cat([part.parents for part in parts]),
        )

    def select(self, rows: Tensor, columns: Tensor, scores: Tensor | None = None) -> Candidates:
        """The candidates `columns` (B', C') of the rows `rows` (B',), with other `scores` (B', C') if given."""
        rows = rows.unsqueeze(1)
        picked = self.scores[rows, columns] if scores is None else scores
        return Candidates(picked, self.tokens[rows, columns], self.parents[rows, columns])


def best_candidates(log_probs: Tensor, totals: Tensor, count: int) -> Candidates:
    """The `count` best of the K·V continuations of each sentence.

    Args:
        log_probs: (B, K, V) float, of the next token.
        totals: (B, K) float, summed log-probability of each hypothesis; -inf for one that is not there.
        count: how many to return; fewer come back where K·V is smaller.
    """
    vocabulary = log_probs.size(2)
    if vocabulary < 4 * BLOCK or count * BLOCK >= vocabulary:
        scores, where = (log_probs + totals.unsqueeze(2)).flatten(1).topk(min(count, log_probs[0].numel()))
        return Candidates(scores, where % vocabulary, where // vocabulary)
    return _best_by_blocks(log_probs, totals, count)


def _blocks(log_probs: Tensor) -> Tensor:
    """(B, K, V) → (B, K, V // 64, 64), without the last, shorter block."""
    whole = log_probs.size(2) // BLOCK
    return log_probs[:, :, : whole * BLOCK].view(*log_probs.shape[:2], whole, BLOCK)


def _best_by_blocks(log_probs: Tensor, totals: Tensor, count: int) -> Candidates:
    sentences, _, vocabulary = log_probs.shape
    blocks = _blocks(log_probs)
    whole = blocks.size(2)
    ranked = (blocks.amax(3) + totals.unsqueeze(2)).flatten(1)
    chosen = ranked.topk(count, sorted=False).indices  # (B, C) in 0..K·V/64-1
    beam, block = chosen // whole, chosen % whole
    rows = torch.arange(sentences, device=log_probs.device).unsqueeze(1)
    words = blocks[rows, beam, block] + totals.gather(1, beam).unsqueeze(2)  # (B, C, 64)
    tail = log_probs[:, :, whole * BLOCK :] + totals.unsqueeze(2)  # the last, shorter block: (B, K, V % 64)
    scores, where = torch.cat([words.flatten(1), tail.flatten(1)], dim=1).topk(count)
    inside = where < count * BLOCK
    column = torch.where(inside, where // BLOCK, 0)
    tokens = block.gather(1, column) * BLOCK + where % BLOCK
    parents = beam.gather(1, column)
    width = vocabulary - whole * BLOCK
    if width:
        past = where - count * BLOCK
        tokens = torch.where(inside, tokens, whole * BLOCK + past % width)
        parents = torch.where(inside, parents, past // width)
    return Candidates(scores, tokens, parents)
