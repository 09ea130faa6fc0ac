"""Words cut anew: without dropout as the tools cut them, with it by draws of each line's own."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import subword_nmt.apply_bpe
from syllables import CODES, sentences, subword_dictionary

from seqba.data.bpe_dropout import WIDTHS, BpeDropout, Lines, line_keys
from seqba.data.dictionary import Dictionary
from seqba.data.merges import Merges, merges_of_sentencepiece, read_codes
from seqba.data.moses import BytePairs
from seqba.data.subwords import Subwords, train_subwords


@pytest.fixture
def codes(tmp_path: Path) -> Path:
    path = tmp_path / "bpe.codes"
    path.write_text("\n".join(CODES) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def subwords() -> Subwords:
    return train_subwords([" ".join(words) for words in sentences(300)], 60)


def lines_of(dictionary: Dictionary, texts: list[list[str]]) -> Lines:
    ids = [list(dictionary.lookup(tokens)) for tokens in texts]
    return Lines(np.array([id for line in ids for id in line], dtype=np.int64), np.array([len(line) for line in ids]))


def texts_of(dictionary: Dictionary, lines: Lines) -> list[list[str]]:
    return [
        [dictionary.symbols[token] for token in part] for part in np.split(lines.tokens, np.cumsum(lines.sizes)[:-1])
    ]


def keys(count: int, *numbers: int) -> Any:
    return line_keys(np.arange(count), 1, *numbers)


def test_without_dropout_words_are_cut_as_subword_nmt_does(codes: Path) -> None:
    dictionary, pairs = subword_dictionary(), BytePairs(codes)
    texts = [pairs.encode(" ".join(words)) for words in sentences(100)]
    one_by_one = [[f"{letter}@@" for letter in text[:-1]] + [text[-1]] for text in ("bakolimu", "nene", "ba", "b")]
    plain = BpeDropout(read_codes(codes), dictionary, 0.0)
    cut = plain.cut(lines_of(dictionary, [*texts, *one_by_one]), keys(104))
    expected = [pairs.encode(text) for text in ("bakolimu", "nene", "ba", "b")]
    assert texts_of(dictionary, cut) == [*texts, *expected]


def test_without_dropout_words_are_cut_as_sentencepiece_does(subwords: Subwords) -> None:
    lines = [" ".join(words) for words in sentences(100, seed=5)]
    texts = subwords.encode_lines(lines)
    dictionary = Dictionary([(piece, 1) for piece in subwords.scores()])
    plain = BpeDropout(merges_of_sentencepiece(subwords, "it"), dictionary, 0.0)
    characters = [list("▁" + line.replace(" ", "▁")) for line in lines]
    for given in (texts, characters):
        assert texts_of(dictionary, plain.cut(lines_of(dictionary, given), keys(100))) == texts


@pytest.mark.parametrize("kind", ["subword-nmt", "sentencepiece"])
def test_the_text_stays_and_comes_in_more_pieces_the_more_is_dropped(
    kind: str, codes: Path, subwords: Subwords
) -> None:
    lines = [" ".join(words) for words in sentences(200, seed=6)]
    tool: BytePairs | Subwords = BytePairs(codes) if kind == "subword-nmt" else subwords
    merges = read_codes(codes) if kind == "subword-nmt" else merges_of_sentencepiece(subwords, "it")
    dictionary = (
        subword_dictionary() if kind == "subword-nmt" else Dictionary([(piece, 1) for piece in subwords.scores()])
    )
    plain = lines_of(dictionary, [tool.encode(line) for line in lines])
    sizes = [int(plain.sizes.sum())]
    for probability in (0.1, 0.5, 0.9):
        cut = BpeDropout(merges, dictionary, probability).cut(plain, keys(200))
        assert [tool.decode(text) for text in texts_of(dictionary, cut)] == lines
        sizes.append(len(cut.tokens))
    assert sizes == sorted(set(sizes))


def test_pieces_come_as_often_as_from_subword_nmts_own_dropout(codes: Path) -> None:
    """Two sided: the same word 4,000 times; each form within five standard errors."""
    count, dropped = 4000, 0.3
    dictionary, pairs = subword_dictionary(), BytePairs(codes)
    cutter = BpeDropout(read_codes(codes), dictionary, dropped)
    ours = Counter(
        " ".join(text)
        for text in texts_of(dictionary, cutter.cut(lines_of(dictionary, [pairs.encode("bako")] * count), keys(count)))
    )
    random.seed(1)
    with codes.open(encoding="utf-8") as file:
        reference = subword_nmt.apply_bpe.BPE(file)
    theirs = Counter(reference.process_line("bako", dropped) for _ in range(count))
    for form in ours | theirs:
        share = (ours[form] + theirs[form]) / (2 * count)
        assert abs(ours[form] - theirs[form]) / count < 5 * (2 * share * (1 - share) / count) ** 0.5, form


def test_a_line_is_cut_by_its_key_alone(codes: Path) -> None:
    dictionary, pairs = subword_dictionary(), BytePairs(codes)
    cutter = BpeDropout(read_codes(codes), dictionary, 0.4)
    texts = [pairs.encode(" ".join(words)) for words in sentences(60)]
    together = texts_of(dictionary, cutter.cut(lines_of(dictionary, texts), keys(60, 7)))
    alone = [
        texts_of(dictionary, cutter.cut(lines_of(dictionary, [text]), line_keys(np.array([row]), 1, 7)))[0]
        for row, text in enumerate(texts)
    ]
    assert together == alone
    assert together != texts_of(dictionary, cutter.cut(lines_of(dictionary, texts), keys(60, 8)))


def test_words_of_one_line_have_draws_of_their_own(codes: Path) -> None:
    dictionary, pairs = subword_dictionary(), BytePairs(codes)
    cutter = BpeDropout(read_codes(codes), dictionary, 0.5)
    (text,) = texts_of(dictionary, cutter.cut(lines_of(dictionary, [pairs.encode("bakoli " * 50)]), keys(1)))
    assert len(set(" ".join(text).replace("@@ ", "|").split())) > 3


def test_keys_differ_by_every_number_in_them() -> None:
    rows = np.arange(5)
    made = np.concatenate(
        [line_keys(rows, 3, seed, epoch, side) for seed in (1, 2) for epoch in (1, 2) for side in (0, 1)]
    )
    assert len(set(made.tolist())) == len(made) == 8 * 15
    assert line_keys(rows, 3, 1, 1)[5:10].tolist() == line_keys(rows, 2, 1, 1)[5:].tolist()  # whatever M is


def plain_merges() -> Merges:
    return Merges({("a", "b"): 0, ("ab", "c"): 1}, "it", are_words_continued=False)


def test_words_that_cannot_be_cut_stay() -> None:
    dictionary = Dictionary([(token, 1) for token in ("ab", "abc", "▁", "a", "<0xE2>", "abcabc")])
    cutter = BpeDropout(plain_merges(), dictionary, 0.6)
    texts = [["▁", "<unk>", "ab"], ["▁", "<0xE2>", "abc"], ["abcabc"], ["ab"] * WIDTHS[-1]]
    for number in range(20):
        assert texts_of(dictionary, cutter.cut(lines_of(dictionary, texts), keys(4, number))) == texts
    # "b" and "c" have no id: a word stays as it is where one of them would be left.
    for number in range(20):
        assert texts_of(dictionary, cutter.cut(lines_of(dictionary, [["abc"]]), keys(1, number))) == [["abc"]]


def test_nothing_is_cut_into_nothing() -> None:
    empty = Lines(np.zeros(0, dtype=np.int64), np.zeros(2, dtype=np.int64))
    cut = BpeDropout(plain_merges(), Dictionary([("abc", 1)]), 0.1).cut(empty, keys(2))
    assert (cut.tokens.tolist(), cut.sizes.tolist()) == ([], [0, 0])


def test_an_empty_line_between_others_stays_empty() -> None:
    dictionary = Dictionary([(token, 1) for token in ("a", "b", "c", "ab", "abc")])
    cut = BpeDropout(plain_merges(), dictionary, 0.0).cut(lines_of(dictionary, [["a", "b"], [], ["abc"]]), keys(3))
    assert texts_of(dictionary, cut) == [["ab"], [], ["abc"]]
