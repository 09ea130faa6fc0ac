"""Pairs of sentences: what a batch holds, which files a split is, and which must be refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from seqba.data.dictionary import Dictionary
from seqba.data.indexed_writer import IndexedWriter
from seqba.data.pair_files import find_languages, open_pairs
from seqba.data.pairs import PairCorpus
from seqba.errors import UserError

DICTIONARY = Dictionary.build(dict.fromkeys("abcdefgh", 1))
ENGLISH = [[4, 5, 2], [6, 2], [7, 7, 7, 7, 2]]
GERMAN = [[8, 2], [9, 10, 11, 2], [8, 8, 2]]


def put(folder: Path, name: str, rows: Sequence[Sequence[int]], size: int = len(DICTIONARY)) -> None:
    with IndexedWriter(folder / name, size) as writer:
        for row in rows:
            writer.add(row)


def put_pair(folder: Path, split: str = "train", languages: str = "en-de") -> Path:
    put(folder, f"{split}.{languages}.en", ENGLISH)
    put(folder, f"{split}.{languages}.de", GERMAN)
    return folder


def opened(
    folder: Path, split: str = "train", source: str = "en", target: str = "de", *, combine: bool = False
) -> PairCorpus:
    return open_pairs(folder, split, (source, target), (DICTIONARY, DICTIONARY), combine=combine)


def test_a_batch_worked_by_hand(tmp_path: Path) -> None:
    corpus = opened(put_pair(tmp_path))
    assert len(corpus) == 3
    assert corpus.source_sizes.tolist() == [3, 2, 5]
    assert corpus.target_sizes.tolist() == [2, 4, 3]
    batch = corpus.batch(np.array([1, 0]))
    assert batch.ids.tolist() == [1, 0]
    assert batch.source.tolist() == [[6, 2, 1], [4, 5, 2]]
    assert batch.target.tolist() == [[9, 10, 11, 2], [8, 2, 1, 1]]
    assert batch.previous.tolist() == [[2, 9, 10, 11], [2, 8, 1, 1]]
    assert {tensor.dtype for tensor in (batch.ids, batch.source, batch.previous, batch.target)} == {torch.int64}
    assert batch.target_tokens == 6


def test_previous_and_target_are_padded_alike(tmp_path: Path) -> None:
    put(tmp_path, "train.en-de.en", [[4, 2], [5, 2]])
    put(tmp_path, "train.en-de.de", [[9, 1, 1, 2], [8, 2]])  # the words "<pad>" in the text
    batch = opened(tmp_path).batch(np.array([0, 1]))
    assert batch.target.tolist() == [[9, 3, 3, 2], [8, 2, 1, 1]]
    assert torch.equal(batch.previous == DICTIONARY.pad, batch.target == DICTIONARY.pad)


def test_either_direction_is_served_by_the_same_files(tmp_path: Path) -> None:
    batch = opened(put_pair(tmp_path), source="de", target="en").batch(np.array([0]))
    assert batch.source.tolist() == [[8, 2]]
    assert batch.target.tolist() == [[4, 5, 2]]


def test_numbered_parts_are_joined_on_request(tmp_path: Path) -> None:
    for split in ("train", "train1", "train2", "train4"):
        put_pair(tmp_path, split)
    assert len(opened(tmp_path)) == 3
    corpus = opened(tmp_path, combine=True)
    assert len(corpus) == 9  # train3 is missing, so that train4 does not follow
    assert corpus.batch(np.array([8, 3])).source.tolist() == [[7, 7, 7, 7, 2], [4, 5, 2, 1, 1]]
    assert len(opened(tmp_path, "train1")) == 3


def test_languages_are_found_in_the_file_names(tmp_path: Path) -> None:
    assert find_languages(put_pair(tmp_path)) == ("en", "de")
    put_pair(tmp_path, "valid")
    assert find_languages(tmp_path) == ("en", "de")
    put(tmp_path, "test.en-fr.en", ENGLISH)
    with pytest.raises(UserError, match=r"several language pairs \(en-de, en-fr\); give --source-lang"):
        find_languages(tmp_path)


def test_a_folder_without_pairs(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data folder .*absent does not exist; make it with seqba-preprocess"):
        find_languages(tmp_path / "absent")
    put(tmp_path, "train", ENGLISH)  # a language model's
    with pytest.raises(UserError, match="holds no parallel corpus"):
        find_languages(tmp_path)


def test_a_missing_split_lists_those_that_are_there(tmp_path: Path) -> None:
    put_pair(tmp_path)
    put_pair(tmp_path, "valid")
    with pytest.raises(
        UserError, match=r"has no split 'test' of en and de \(test\.en-de\.en\.idx\); it has: train, val"
    ):
        opened(tmp_path, "test")


def test_a_split_is_a_name_and_no_path(tmp_path: Path) -> None:
    """The file of another folder would be read by this one's dictionaries."""
    (tmp_path / "a").mkdir()
    put_pair(tmp_path, "test")
    with pytest.raises(UserError, match=r"'../test' is a path, not the name of a split .*: give its folder as DATA"):
        opened(tmp_path / "a", "../test")


def test_sides_of_different_length(tmp_path: Path) -> None:
    put(tmp_path, "train.en-de.en", ENGLISH)
    put(tmp_path, "train.en-de.de", GERMAN[:2])
    with pytest.raises(UserError, match=r"train\.en-de\.en\.idx has 3 sentences and .*de\.idx 2; preprocess both"):
        opened(tmp_path)


def test_a_corpus_that_no_model_can_learn_from(tmp_path: Path) -> None:
    put(tmp_path, "train.en-de.en", [])
    put(tmp_path, "train.en-de.de", [])
    with pytest.raises(UserError, match=r"train\.en-de\.en\.bin holds no sentences"):
        opened(tmp_path)
    for rows in ([[8, 2], [9]], [[8, 2], []]):
        put(tmp_path, "valid.en-de.en", ENGLISH[:2])
        put(tmp_path, "valid.en-de.de", rows)
        with pytest.raises(UserError, match=r"valid\.en-de\.de\.bin has rows that do not end with </s>"):
            opened(tmp_path, "valid")


def test_ids_are_checked_against_their_own_side(tmp_path: Path) -> None:
    put_pair(tmp_path)
    small = Dictionary.build({"a": 1, "b": 1, "c": 1, "d": 1})
    open_pairs(tmp_path, "train", ("en", "de"), (small, DICTIONARY))
    with pytest.raises(UserError, match=r"de\.bin, row 0: id 8 is beyond the dictionary of 8 symbols"):
        open_pairs(tmp_path, "train", ("en", "de"), (DICTIONARY, small))


def opened_to_translate(folder: Path, split: str = "test", source: str = "en", target: str = "de") -> PairCorpus:
    return open_pairs(folder, split, (source, target), (DICTIONARY, DICTIONARY), needs_target=False)


@pytest.mark.parametrize("languages", ["en-de", "de-en", "en-None"])
def test_sources_without_references(languages: str, tmp_path: Path) -> None:
    put(tmp_path, f"test.{languages}.en", ENGLISH)
    corpus = opened_to_translate(tmp_path)
    assert not corpus.has_references
    assert (len(corpus), corpus.source_sizes.tolist(), corpus.target_sizes.tolist()) == (3, [3, 2, 5], [0, 0, 0])
    batch = corpus.batch(np.array([1, 0]))
    assert batch.source.tolist() == [[6, 2, 1], [4, 5, 2]]
    assert batch.target.shape == batch.previous.shape == (2, 0)
    assert batch.target_tokens == 0
    with pytest.raises(UserError, match=rf"split 'test' of .* has no references: test\.{languages}\.en\.idx is there"):
        opened(tmp_path, "test")


def test_both_sides_are_taken_where_there_are_both(tmp_path: Path) -> None:
    put(tmp_path, "test.en-de.en", ENGLISH[:1])
    put_pair(tmp_path, "test", "de-en")
    assert opened_to_translate(tmp_path).has_references
    assert len(opened_to_translate(tmp_path)) == 3
    put(tmp_path, "test.de-en.de", GERMAN[:2])
    with pytest.raises(UserError, match="preprocess both sides again, together"):
        opened_to_translate(tmp_path)


def test_a_split_without_its_source(tmp_path: Path) -> None:
    put(tmp_path, "test.en-de.de", GERMAN)
    with pytest.raises(UserError, match=r"has no en side: test\.en-de\.de\.idx is there, and no test\.en-de\.en\.idx"):
        opened_to_translate(tmp_path)
    assert not opened_to_translate(tmp_path, source="de", target="en").has_references
    put(tmp_path, "valid", ENGLISH)
    with pytest.raises(
        UserError, match=r"is a text without a language \(valid\.idx\).*--source-lang en --target-lang de"
    ):
        opened_to_translate(tmp_path, "valid")
    with pytest.raises(UserError, match="has no split 'train'"):
        opened_to_translate(tmp_path, "train")


def test_parts_without_references_leave_the_whole_without(tmp_path: Path) -> None:
    put_pair(tmp_path, "train")
    put(tmp_path, "train1.en-de.en", ENGLISH)
    with pytest.raises(UserError, match=r"split 'train1' of .* has no references"):
        opened(tmp_path, combine=True)
