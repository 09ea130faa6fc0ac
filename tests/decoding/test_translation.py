"""A split translated: all of it, in the corpus's order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from table_model import TableModel

from seqba.data.dictionary import Dictionary
from seqba.data.indexed import IndexedCorpus
from seqba.data.indexed_writer import IndexedWriter
from seqba.data.pairs import PairCorpus
from seqba.decoding.beam import beam_search
from seqba.decoding.detokenize import TextForm
from seqba.decoding.options import SearchOptions
from seqba.decoding.translation import plan_translation, translate_batches, translate_corpus

WORDS = 40
DICTIONARY = Dictionary([(f"w{number}", 1) for number in range(WORDS - 4)])
CPU = torch.device("cpu")
OPTIONS = SearchOptions(beam=3, max_len_a=1.0, max_len_b=3)


def make_pairs(folder: Path) -> PairCorpus:
    chance = np.random.default_rng(1)
    sides = []
    for side in ("source", "target"):
        with IndexedWriter(folder / side, WORDS) as writer:
            for _ in range(20):
                words = chance.integers(4, WORDS, chance.integers(1, 9))
                writer.add(np.array([*words.tolist(), Dictionary.eos]))
        sides.append(IndexedCorpus(folder / side, vocabulary_size=WORDS))
    return PairCorpus(*sides)


def test_batches_go_from_short_to_long(tmp_path: Path) -> None:
    pairs = make_pairs(tmp_path)
    rows = np.arange(0, 20, 2)
    batches = plan_translation(pairs, rows, max_tokens=30, multiple=1)
    order = np.concatenate([batches[number] for number in range(len(batches))])
    assert sorted(order) == rows.tolist()
    sizes = [(int(pairs.source_sizes[row]), int(pairs.target_sizes[row])) for row in order]
    assert sizes == sorted(sizes)


def test_the_corpus_comes_back_in_its_own_order(tmp_path: Path) -> None:
    pairs = make_pairs(tmp_path)
    model, form = TableModel(WORDS, seed=3), TextForm(DICTIONARY)
    rows = np.array([1, 4, 5, 11, 19])
    small = translate_corpus(model, pairs, rows, form, OPTIONS, device=CPU, max_tokens=20)
    large = translate_corpus(model, pairs, rows, form, OPTIONS, device=CPU)
    assert small == large
    for row, hypothesis, reference in zip(rows, small.hypotheses, small.references, strict=True):
        [[best, *_]] = beam_search(model, pairs.batch(np.array([row])).source, OPTIONS)
        assert hypothesis == " ".join(DICTIONARY.decode(best.tokens))
        assert reference == " ".join(DICTIONARY.decode(pairs.target[int(row)]))


def test_prefixes_come_from_the_references(tmp_path: Path) -> None:
    pairs = make_pairs(tmp_path)
    batches = plan_translation(pairs, np.arange(20))
    model = TableModel(WORDS, seed=3)
    for batch, found in translate_batches(model, pairs, batches, OPTIONS, device=CPU, prefix_size=2):
        for target, hypotheses in zip(batch.target.tolist(), found, strict=True):
            assert all(list(hypothesis.tokens[:2]) == target[:2] for hypothesis in hypotheses)


def test_draws_are_keyed_by_the_row(tmp_path: Path) -> None:
    pairs = make_pairs(tmp_path)
    options = SearchOptions(beam=2, nbest=2, sampling=True, max_len_b=8)
    model = TableModel(WORDS, seed=3, spread=0.5)
    drawn = []
    for max_rows in (1, 20):
        batches = plan_translation(pairs, np.arange(20), max_rows=max_rows, multiple=1)
        rows = {}
        for batch, found in translate_batches(model, pairs, batches, options, device=CPU):
            rows.update(zip(batch.ids.tolist(), ([each.tokens for each in own] for own in found), strict=True))
        drawn.append(rows)
    assert drawn[0] == drawn[1]
