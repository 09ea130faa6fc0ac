"""The real Transformer under the search: what a table of logits cannot show about caches, padding and batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from seqba.decoding.beam import beam_search
from seqba.decoding.ensemble import Ensemble
from seqba.decoding.options import SearchOptions
from seqba.decoding.reference import score_references
from seqba.models.config import TransformerConfig
from seqba.models.transformer import Transformer

VOCABULARY = 300


def make_model(seed: int) -> Transformer:
    torch.manual_seed(seed)
    config = TransformerConfig(
        encoder_layers=2,
        decoder_layers=2,
        encoder_embed_dim=32,
        decoder_embed_dim=32,
        encoder_ffn_embed_dim=64,
        decoder_ffn_embed_dim=64,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        max_target_positions=64,
    )
    model = Transformer(config, source_vocabulary=VOCABULARY, target_vocabulary=VOCABULARY)
    with torch.no_grad():
        model.output_weight.mul_(4)  # opinions strong enough that rounding cannot change them
        model.output_weight[2] += 0.4 * torch.randn(32)
    return model.eval()


def sentences(count: int) -> list[list[int]]:
    chance = np.random.default_rng(3)
    return [[*chance.integers(4, VOCABULARY, chance.integers(1, 12)).tolist(), 2] for _ in range(count)]


def batch(rows: list[list[int]]) -> Tensor:
    longest = max(map(len, rows))
    return torch.tensor([row + [1] * (longest - len(row)) for row in rows])


@pytest.mark.parametrize("beam", [1, 4])
def test_batching_changes_no_translation(beam: int) -> None:
    model, rows = make_model(0), sentences(9)
    options = SearchOptions(beam=beam, max_len_a=1.5, max_len_b=4, lenpen=0.6)
    together = beam_search(model, batch(rows), options)
    assert len({len(hypotheses[0].tokens) for hypotheses in together}) > 3
    for row, hypotheses in zip(rows, together, strict=True):
        [alone] = beam_search(model, batch([row]), options)
        assert [each.tokens for each in alone] == [each.tokens for each in hypotheses]
        for one, other in zip(alone, hypotheses, strict=True):
            assert one.score == pytest.approx(other.score, abs=1e-4)


@pytest.mark.parametrize("beam", [1, 4])
def test_caches_in_bfloat16_hold_long_translations(beam: int) -> None:
    model, rows = make_model(0).bfloat16(), sentences(5)
    options = SearchOptions(beam=beam, max_len_a=0, max_len_b=40, min_len=40)  # caches grow, by 32 keys at a time
    for row, hypotheses in zip(rows, beam_search(model, batch(rows), options), strict=True):
        tokens = hypotheses[0].tokens
        logits = model.float()(torch.tensor([row]), torch.tensor([[2, *tokens[:-1]]]))
        scores = logits.log_softmax(2).gather(2, torch.tensor([tokens]).unsqueeze(2))[0, :, 0]
        torch.testing.assert_close(torch.tensor(hypotheses[0].token_scores), scores, rtol=0.02, atol=0.2)


def test_scores_are_those_of_the_whole_target_at_once() -> None:
    models, rows = [make_model(0), make_model(1)], sentences(6)
    options = SearchOptions(beam=3, max_len_a=1.5, max_len_b=4, lenpen=0.6, temperature=1.3)
    searched = beam_search(Ensemble(models, temperature=1.3), batch(rows), options)
    best = [hypotheses[0] for hypotheses in searched]
    target = batch([list(hypothesis.tokens) for hypothesis in best])
    previous = batch([[2, *hypothesis.tokens[:-1]] for hypothesis in best])
    scored = score_references(models, batch(rows), previous, target, options)
    for one, other in zip(scored, best, strict=True):
        assert one.tokens == other.tokens
        assert one.score == pytest.approx(other.score, abs=1e-4)
        assert one.token_scores == pytest.approx(other.token_scores, abs=1e-3)
    unnormalised = score_references(models, batch(rows), previous, target, SearchOptions(unnormalized=True))
    assert unnormalised[0].score == pytest.approx(sum(unnormalised[0].token_scores))


def test_a_source_of_padding_alone_is_an_error() -> None:
    model = make_model(0)
    source, target = torch.tensor([[4, 2], [1, 1]]), torch.tensor([[5, 2], [5, 2]])
    with pytest.raises(ValueError, match="source row 1 is padding alone"):
        beam_search(model, source, SearchOptions())
    with pytest.raises(ValueError, match="source row 1 is padding alone"):
        score_references([model], source, torch.tensor([[2, 5], [2, 5]]), target, SearchOptions())


def test_greedy_equals_rereading_the_prefix() -> None:
    model, rows = make_model(2), sentences(4)
    options = SearchOptions(beam=1, max_len_b=9)
    for row, [best] in zip(rows, beam_search(model, batch(rows), options), strict=True):
        tokens = [2]
        for step in range(10):
            with torch.no_grad():
                logits = model(torch.tensor([row]), torch.tensor([tokens]))[0, -1]
            logits[[0, 1]] = -torch.inf
            if step == 0:
                logits[2] = -torch.inf
            tokens.append(2 if step == 9 else int(logits.argmax()))
            if tokens[-1] == 2:
                break
        assert best.tokens == tuple(tokens[1:])


def test_sampling_is_the_same_in_every_batch() -> None:
    model, rows = make_model(3), sentences(6)
    options = SearchOptions(beam=3, nbest=3, sampling=True, sampling_topp=0.8, max_len_b=8)
    together = beam_search(model, batch(rows), options)
    for number, row in enumerate(rows):
        [alone] = beam_search(model, batch([row]), options, ids=[number])
        assert [each.tokens for each in alone] == [each.tokens for each in together[number]]
