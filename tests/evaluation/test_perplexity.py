"""Scores of a text, token by token, against the model's own log-softmax read in the plainest way."""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from alphabet import write_alphabet
from torch.nn import functional

from seqba.data.indexed import IndexedCorpus
from seqba.data.monolingual import open_dictionary, open_monolingual
from seqba.errors import UserError
from seqba.evaluation.perplexity import BlockScoring, ScoredRow, Tally, score_blocks
from seqba.models.config import DecoderConfig
from seqba.models.transformer_lm import TransformerLM

BOS, EOS = 0, 2
SETTINGS = BlockScoring(tokens_per_sample=10)


def open_corpus(folder: Path) -> IndexedCorpus:
    corpus = open_monolingual(folder, "test", open_dictionary(folder))
    assert isinstance(corpus, IndexedCorpus)
    return corpus


@pytest.fixture
def corpus(alphabet: Path) -> IndexedCorpus:
    return open_corpus(alphabet)


@pytest.fixture
def model() -> TransformerLM:
    torch.manual_seed(3)
    return (
        TransformerLM(
            DecoderConfig(
                decoder_layers=2,
                decoder_embed_dim=16,
                decoder_ffn_embed_dim=24,
                decoder_attention_heads=2,
                max_target_positions=40,
            ),
            vocabulary=16,
        )
        .double()
        .eval()
    )


def scores_of(model: TransformerLM, read: list[int], predicted: list[int]) -> np.ndarray[Any, Any]:
    """Log-probabilities of the last places of a row, one row at a time."""
    with torch.no_grad():
        logits = model(torch.tensor([read]))[0]
    every = functional.log_softmax(logits, dim=-1)[-len(predicted) :]
    return every[torch.arange(len(predicted)), torch.tensor(predicted)].numpy()


def flatten(scored: Any) -> list[ScoredRow]:
    return sorted((row for rows in scored for row in rows), key=lambda row: row.id)


@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize("window", [0, 4, 9])
def test_blocks_are_scored_in_their_context(
    window: int, bos: bool, model: TransformerLM, corpus: IndexedCorpus
) -> None:
    settings = replace(SETTINGS, context_window=window, add_bos=bos, max_tokens=60)
    found = flatten(score_blocks(model, corpus, settings))
    text, size = corpus.take(np.arange(corpus.tokens)).tolist(), 10 - window
    assert [row.id for row in found] == list(range(-(-len(text) // size)))
    for row in found:
        start, end = row.id * size, min((row.id + 1) * size, len(text))
        read = [EOS, *text][max(0, start - window) : end]
        expected = scores_of(model, [BOS, *read] if bos else read, text[start:end])
        assert row.tokens.tolist() == text[start:end]
        np.testing.assert_allclose(row.log_probabilities, expected, rtol=1e-9)


def test_lines_are_scored_one_by_one(model: TransformerLM, corpus: IndexedCorpus) -> None:
    batches = list(score_blocks(model, corpus, replace(SETTINGS, break_mode="eos", max_tokens=60)))
    lengths = [len(row.tokens) for rows in batches for row in rows]
    assert lengths == sorted(lengths)
    for row in flatten(batches):
        line = corpus[row.id].tolist()
        np.testing.assert_allclose(row.log_probabilities, scores_of(model, [EOS, *line[:-1]], line), rtol=1e-9)


@pytest.mark.parametrize("changes", [{"max_tokens": 11}, {"max_tokens": None, "max_rows": 3}, {}])
def test_batches_change_nothing(changes: dict[str, Any], model: TransformerLM, corpus: IndexedCorpus) -> None:
    one = Tally()
    for row in flatten(score_blocks(model, corpus, replace(SETTINGS, max_tokens=None, max_rows=1))):
        one.add(row)
    other = Tally()
    for rows in score_blocks(model, corpus, replace(SETTINGS, **changes)):
        assert len(rows) <= changes.get("max_rows", 1 << 20)
        for row in rows:
            other.add(row)
    assert one.tokens == other.tokens == corpus.tokens
    assert one.log_probability == pytest.approx(other.log_probability, rel=1e-12)


def test_a_model_that_knows_nothing_has_the_vocabulary_as_perplexity(corpus: IndexedCorpus) -> None:
    config = DecoderConfig(decoder_layers=1, decoder_embed_dim=16, decoder_attention_heads=2)
    model = TransformerLM(config, vocabulary=16).eval()
    with torch.no_grad():
        model.output_weight.zero_()
    tally = Tally()
    for row in flatten(score_blocks(model, corpus, SETTINGS)):
        tally.add(row)
    assert tally.bits == pytest.approx(4.0)
    assert tally.perplexity == pytest.approx(16.0)


def test_a_tally_worked_by_hand() -> None:
    tally = Tally()
    tally.add(ScoredRow(0, np.array([5, 6]), np.log([0.5, 0.25])))
    tally.add(ScoredRow(1, np.array([7]), np.log([0.125])))
    assert (tally.tokens, tally.bits, tally.perplexity) == (3, pytest.approx(2.0), pytest.approx(4.0))
    tally.add(ScoredRow(2, np.array([7]), np.array([-1e5])))
    assert tally.perplexity == math.inf


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"context_window": 10}, "--context-window 10 leaves nothing to score of --tokens-per-sample 10"),
        ({"tokens_per_sample": 41}, "makes rows of 41 tokens, and the model takes 40"),
        ({"tokens_per_sample": 40, "add_bos": True}, "40 and <s> makes rows of 41 tokens, and the model takes 40"),
        ({"max_tokens": 9}, "makes rows of 10 tokens, more than --max-tokens 9"),
        ({"tokens_per_sample": 41, "break_mode": "eos", "context_window": 2}, "rows of 41 tokens"),
    ],
)
def test_rows_that_nothing_can_hold_are_refused(
    changes: dict[str, Any], message: str, model: TransformerLM, corpus: IndexedCorpus
) -> None:
    with pytest.raises(UserError, match=message):
        score_blocks(model, corpus, replace(SETTINGS, **changes))


def test_overlong_lines_are_refused_unless_skipped(
    model: TransformerLM, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    corpus = open_corpus(write_alphabet(tmp_path, long_line=60))
    lines = replace(SETTINGS, break_mode="eos")
    with pytest.raises(UserError, match=r"1 lines longer than 40 tokens \(lines 0, from 0\): .*add --skip-invalid"):
        score_blocks(model, corpus, lines)
    with caplog.at_level(logging.WARNING):
        found = flatten(score_blocks(model, corpus, replace(lines, skip_overlong=True)))
    assert [row.id for row in found] == list(range(1, 40))
    assert "left out" in caplog.text
    with pytest.raises(UserError, match="no line that the model can take"):
        score_blocks(model, corpus, replace(lines, max_tokens=1, skip_overlong=True))
