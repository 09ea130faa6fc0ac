"""Several models as one."""

from __future__ import annotations

import pytest
import torch
from table_model import TableModel

from seqba.decoding.beam import beam_search
from seqba.decoding.ensemble import Ensemble, average_log_probs
from seqba.decoding.options import SearchOptions

SOURCE = torch.tensor([[4, 5, 2], [6, 2, 1]])
OPTIONS = SearchOptions(beam=3, max_len_b=8)


def test_two_equal_models_are_one() -> None:
    model = TableModel(30, seed=1)
    one = beam_search(Ensemble([model]), SOURCE, OPTIONS)
    two = beam_search(Ensemble([model, TableModel(30, seed=1)]), SOURCE, OPTIONS)
    for alone, both in zip(one, two, strict=True):
        assert [each.tokens for each in alone] == [each.tokens for each in both]
        assert [each.score for each in alone] == pytest.approx([each.score for each in both], abs=1e-5)
    assert one == beam_search(model, SOURCE, OPTIONS)


def test_probabilities_are_averaged() -> None:
    first, second = TableModel(30, seed=1), TableModel(30, seed=2)
    [best, *_], _ = beam_search(Ensemble([first, second]), SOURCE, OPTIONS)
    mean = (
        first.log_probability(SOURCE[0], best.tokens).exp() + second.log_probability(SOURCE[0], best.tokens).exp()
    ) / 2
    torch.testing.assert_close(torch.tensor(best.token_scores), mean.log(), atol=1e-4, rtol=1e-4)


def test_average_by_hand() -> None:
    logits = [torch.tensor([0.2, 0.8]).log(), torch.tensor([0.6, 0.4]).log() + 5]
    torch.testing.assert_close(average_log_probs(logits).exp(), torch.tensor([0.4, 0.6]))


def test_temperature_divides_logits() -> None:
    model = TableModel(30, seed=1)
    state = model.begin(SOURCE, 2)
    tokens = torch.full((2, 2), 2)
    cold = Ensemble([model], temperature=4.0)
    torch.testing.assert_close(
        cold.step(cold.begin(SOURCE, 2), tokens), model.step(state, tokens) / 4, atol=1e-6, rtol=1e-6
    )


def test_the_shortest_positions_count() -> None:
    short = TableModel(9, positions=5)
    assert Ensemble([TableModel(9), short]).max_target_positions == 5
    with pytest.raises(ValueError, match="at least one"):
        Ensemble([])
