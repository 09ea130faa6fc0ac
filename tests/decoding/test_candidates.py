"""Ranking by blocks against ranking everything."""

from __future__ import annotations

import pytest
import torch

from seqba.decoding.candidates import best_candidates


@pytest.mark.parametrize("vocabulary", [7, 64, 640, 1000, 8000, 1025])
@pytest.mark.parametrize("count", [2, 8])
def test_equals_topk_over_everything(vocabulary: int, count: int) -> None:
    generator = torch.Generator().manual_seed(vocabulary + count)
    log_probs = torch.randn(5, 4, vocabulary, generator=generator)
    log_probs[0, :, 5:] = -torch.inf
    log_probs[1, 2, vocabulary - 1] = 9.0  # in the last, shorter block
    totals = torch.randn(5, 4, generator=generator)
    totals[3, 1:] = -torch.inf
    found = best_candidates(log_probs, totals, count)
    everything = log_probs + totals.unsqueeze(2)
    expected = everything.flatten(1).topk(count).values
    assert torch.equal(found.scores, expected)
    rows = torch.arange(5).unsqueeze(1)
    assert torch.equal(everything[rows, found.parents, found.tokens], expected)
    assert all(len(set(pairs)) == count for pairs in ((found.parents * vocabulary + found.tokens).tolist()))


def test_no_more_than_there_are() -> None:
    assert best_candidates(torch.zeros(2, 1, 5), torch.zeros(2, 1), 8).scores.shape == (2, 5)
