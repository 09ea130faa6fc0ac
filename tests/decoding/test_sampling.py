"""Draws follow the model's probabilities, within the shortlist, and are keyed by the sentence."""

from __future__ import annotations

import math

import pytest
import torch
from table_model import TableModel

from seqba.decoding.beam import beam_search
from seqba.decoding.options import SearchOptions
from seqba.decoding.sampling import keyed_uniforms, sample_candidates

PROBABILITIES = torch.tensor([0.05, 0.4, 0.0, 0.3, 0.25])


def frequencies(topk: int = -1, topp: float = -1.0) -> torch.Tensor:
    draws = 20_000
    log_probs = PROBABILITIES.log().expand(draws, 1, -1)
    uniforms = keyed_uniforms(1, [0], draws, 1)[0]
    found = sample_candidates(log_probs, torch.zeros(draws, 1), uniforms, topk=topk, topp=topp)
    torch.testing.assert_close(found.scores, PROBABILITIES.log()[found.tokens])
    return torch.bincount(found.tokens.flatten(), minlength=5) / draws


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, PROBABILITIES),
        ({"topk": 2}, torch.tensor([0.0, 4 / 7, 0.0, 3 / 7, 0.0])),
        ({"topp": 0.6}, torch.tensor([0.0, 4 / 7, 0.0, 3 / 7, 0.0])),
        ({"topp": 0.3}, torch.tensor([0.0, 1.0, 0.0, 0.0, 0.0])),
        ({"topp": 1.0}, PROBABILITIES),
    ],
    ids=["all", "topk", "topp", "topp-small", "topp-one"],
)
def test_frequencies(settings: dict[str, float], expected: torch.Tensor) -> None:
    torch.testing.assert_close(frequencies(**settings), expected, atol=0.015, rtol=0)  # type: ignore[arg-type]
    assert frequencies(**settings)[2] == 0  # type: ignore[arg-type]


def test_draws_are_keyed() -> None:
    one = keyed_uniforms(1, [3, 4], 5, 2)
    assert torch.equal(one[1:], keyed_uniforms(1, [4], 5, 2))
    assert not torch.equal(one[0], one[1])
    assert not torch.equal(one, keyed_uniforms(2, [3, 4], 5, 2))


def test_sampled_translations_differ_and_repeat() -> None:
    model = TableModel(40, seed=4, spread=0.5)
    source = torch.tensor([[4, 2], [4, 2]])
    options = SearchOptions(beam=4, nbest=4, sampling=True, max_len_b=10)
    first, second = beam_search(model, source, options, ids=[0, 1])
    assert len({hypothesis.tokens for hypothesis in first}) > 1
    assert len(first) == len(second) == 4
    assert first != second
    assert beam_search(model, source, options, ids=[0, 1]) == [first, second]
    for hypothesis in first:
        assert not {0, 1} & set(hypothesis.tokens)
        assert all(math.isfinite(score) for score in hypothesis.token_scores)
