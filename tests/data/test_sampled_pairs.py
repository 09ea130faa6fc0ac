"""Batches of pairs whose copies are cut anew."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from syllables import subword_dictionary, write_syllables

from seqba.data.batching import Batches
from seqba.data.dictionary import Dictionary
from seqba.data.merges import Merges, read_codes
from seqba.data.pair_files import open_pairs
from seqba.data.pairs import PairCorpus
from seqba.data.sampled_pairs import PairSampler, SampledSide
from seqba.errors import UserError
from seqba.rows.replicate import select_copies
from seqba.tasks.token_batches import Copied

ROWS = np.array([3, 50, 7, 11])
NEVER = np.zeros_like(ROWS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_syllables(tmp_path_factory.mktemp("syllables"))


@pytest.fixture(scope="module")
def pairs(folder: Path) -> PairCorpus:
    return open_pairs(folder, "train", ("xx", "yy"), (subword_dictionary(), subword_dictionary()))


def sampler(folder: Path, *, longest: int = 100, seed: int = 1, merges: Merges | None = None) -> PairSampler:
    chosen = merges or read_codes(folder / "bpe.codes")
    sides = [SampledSide(language, chosen, subword_dictionary(), longest) for language in ("xx", "yy")]
    return PairSampler(sides[0], sides[1], 0.4, seed=seed)


def words(ids: torch.Tensor) -> list[str]:
    return [" ".join(subword_dictionary().decode(row)).replace("@@ ", "") for row in ids.tolist()]


def test_each_copy_has_the_words_in_subwords_of_its_own(folder: Path, pairs: PairCorpus) -> None:
    plain = pairs.batch(ROWS)
    batch = sampler(folder).batch(pairs, 1, ROWS, NEVER, 3)
    assert batch.ids.tolist() == 3 * ROWS.tolist()
    for tensor, as_it_was in ((batch.source, plain.source), (batch.target, plain.target)):
        assert words(tensor) == 3 * words(as_it_was)
        copies = tensor.view(3, len(ROWS), -1)
        assert not torch.equal(copies[0], copies[1])
        assert not torch.equal(copies[1], copies[2])
    inside = batch.target != Dictionary.pad
    assert torch.equal(batch.previous != Dictionary.pad, inside)
    assert torch.equal(batch.previous[:, 1:][inside[:, 1:]], batch.target[:, :-1][inside[:, 1:]])
    assert (batch.previous[:, 0] == Dictionary.eos).all()
    last = inside.sum(1) - 1
    assert (batch.target[torch.arange(len(last)), last] == Dictionary.eos).all()


def test_a_row_is_cut_alike_in_any_company_and_otherwise_in_another_epoch_or_run(
    folder: Path, pairs: PairCorpus
) -> None:
    def cut(epoch: int = 1, rows: list[int] = [3, 50, 7, 11], copies: int = 2, seed: int = 1) -> list[list[int]]:  # noqa: B006
        batch = sampler(folder, seed=seed).batch(pairs, epoch, np.array(rows), NEVER[: len(rows)], copies)
        rows_of_copy = select_copies(batch, range(1, 2), copies).source
        return [[token for token in row if token != Dictionary.pad] for row in rows_of_copy.tolist()]

    assert cut() == cut(copies=3)
    assert cut(rows=[7, 3]) == [cut()[2], cut()[0]]
    assert cut() != cut(epoch=2)
    assert cut() != cut(seed=2)


def test_a_row_that_comes_again_in_an_epoch_is_cut_anew(folder: Path, pairs: PairCorpus) -> None:
    twice = Batches(np.array([50, 3, 7, 50, 7]), np.array([0, 3, 5]))
    planned = Copied(pairs, twice, partial(sampler(folder).batch, pairs, 1))
    first, again = (planned.copied(number, 4) for number in range(2))
    before, after = (select(batch.source, each) for batch, each in ((first, [0, 2]), (again, [0, 1])))
    assert all(len({*one, *other}) > len({*one}) for one, other in zip(before, after, strict=True))
    alone = sampler(folder).batch(pairs, 1, np.array([50, 3, 7]), NEVER[:3], 4)
    assert torch.equal(first.source, alone.source)


def select(ids: torch.Tensor, rows: list[int]) -> list[list[tuple[int, ...]]]:
    """The cuts of some rows, of all four copies."""
    copies = ids.view(4, len(ids) // 4, -1).tolist()
    return [[tuple(token for token in copy[row] if token != Dictionary.pad) for copy in copies] for row in rows]


def test_both_sides_have_draws_of_their_own(folder: Path, pairs: PairCorpus) -> None:
    mirrored = PairCorpus(pairs.source, pairs.source)
    batch = sampler(folder).batch(mirrored, 1, ROWS, NEVER, 1)
    assert words(batch.source) == words(batch.target)
    assert not torch.equal(batch.source, batch.target)


def test_a_line_that_comes_out_too_long_stays_as_it_is(folder: Path, pairs: PairCorpus) -> None:
    longest = int(pairs.source.sizes[ROWS].max())
    free, bound = (sampler(folder, longest=most).batch(pairs, 1, ROWS, NEVER, 4) for most in (100, longest))
    plain = pairs.batch(ROWS)
    assert free.source.shape[1] > longest
    assert bound.source.shape[1] <= longest
    for number in range(16):
        size = int((free.source[number] != Dictionary.pad).sum())
        expected = (free.source[number] if size <= longest else plain.source[number % 4])[: bound.source.shape[1]]
        assert bound.source[number, : len(expected)].tolist() == expected.tolist()


def test_a_text_that_other_merges_have_made_is_refused(folder: Path, pairs: PairCorpus) -> None:
    sampler(folder).check(pairs, "bin")
    ranks = read_codes(folder / "bpe.codes").ranks
    turned = {pair: len(ranks) - rank for pair, rank in ranks.items()} | {("a", "k"): 0}
    other = Merges(turned, "other.codes", are_words_continued=True)
    with pytest.raises(UserError, match=r"of the first 200 lines of xx in bin only \d+% are cut as other\.codes does"):
        sampler(folder, merges=other).check(pairs, "bin")


def test_a_text_that_can_hardly_be_cut_is_refused(folder: Path, pairs: PairCorpus) -> None:
    few = Merges({("b", "a"): 0, ("b", "a</w>"): 1}, "few.codes", are_words_continued=True)
    with pytest.raises(
        UserError, match=r"few\.codes can cut only \d+% of the words of the first 200 lines of xx in bin"
    ):
        sampler(folder, merges=few).check(pairs, "bin")
