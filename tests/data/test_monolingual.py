"""A language model's text under the names that preprocessing gives it, and what is no such text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from seqba.cli.preprocess import main as preprocess
from seqba.data.dictionary import Dictionary
from seqba.data.indexed_writer import IndexedWriter
from seqba.data.monolingual import open_dictionary, open_monolingual
from seqba.data.pair_files import find_languages
from seqba.errors import UserError

DICTIONARY = Dictionary.build(dict.fromkeys("abcdefgh", 1))
ROWS = [[4, 5, 2], [6, 2], [7, 7, 7, 7, 2]]


def put(folder: Path, name: str, rows: Sequence[Sequence[int]] = ROWS) -> Path:
    with IndexedWriter(folder / name, len(DICTIONARY)) as writer:
        for row in rows:
            writer.add(row)
    return folder


def rows_of(corpus: object) -> list[list[int]]:
    return [corpus[row].tolist() for row in range(len(corpus))]  # type: ignore[index, arg-type]


@pytest.mark.parametrize("language", [None, "en"])
def test_what_preprocessing_writes_is_found(language: str | None, tmp_path: Path) -> None:
    suffix = "" if language is None else ".en"
    for split, text in (("train", "a b a\nb\n"), ("valid", "a c\n")):
        (tmp_path / f"{split}{suffix}").write_text(text, encoding="utf-8")
    flags = [] if language is None else ["--source-lang", language]
    arguments = ["--trainpref", str(tmp_path / "train"), "--validpref", str(tmp_path / "valid")]
    assert preprocess([*arguments, "--only-source", "--destdir", str(tmp_path / "bin"), *flags]) == 0
    names = {path.name for path in (tmp_path / "bin").iterdir()}
    assert ("dict.txt" in names, "dict.en.txt" in names) == (language is None, language == "en")
    dictionary = open_dictionary(tmp_path / "bin")
    assert dictionary.symbols[4:6] == ["a", "b"]
    assert rows_of(open_monolingual(tmp_path / "bin", "train", dictionary)) == [[4, 5, 4, 2], [5, 2]]
    assert rows_of(open_monolingual(tmp_path / "bin", "valid", dictionary)) == [[4, 3, 2]]


@pytest.mark.parametrize("pattern", ["{}", "{}.en-None.en"])
def test_numbered_parts_are_joined_on_request(pattern: str, tmp_path: Path) -> None:
    for split in ("train", "train1", "train2", "train4"):
        put(tmp_path, pattern.format(split))
    assert len(open_monolingual(tmp_path, "train", DICTIONARY)) == 3
    assert rows_of(open_monolingual(tmp_path, "train", DICTIONARY, combine=True)) == ROWS * 3  # no train3: no train4
    assert len(open_monolingual(tmp_path, "train1", DICTIONARY)) == 3


def test_pairs_are_no_text(tmp_path: Path) -> None:
    for side in ("en", "de"):
        put(tmp_path, f"train.en-de.{side}")
    for opening in (open_dictionary, lambda folder: open_monolingual(folder, "train", DICTIONARY)):
        with pytest.raises(UserError, match=r"holds sentence pairs \(en-de\), not the text.*--task translation, or"):
            opening(tmp_path)


@pytest.mark.parametrize("name", ["train", "train.en-None.en"])
def test_a_text_is_no_pairs(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no parallel corpus but the text of a language model: take --task lang"):
        find_languages(put(tmp_path, name))


def test_a_text_beside_pairs_is_found(tmp_path: Path) -> None:
    for name in ("train.en-de.en", "train.en-de.de", "train"):
        put(tmp_path, name)
    assert len(open_monolingual(tmp_path, "train", DICTIONARY)) == 3
    assert find_languages(tmp_path) == ("en", "de")


def test_folders_without_one_text_are_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent does not exist; make one with seqba-preprocess --only-source"):
        open_dictionary(tmp_path / "absent")
    with pytest.raises(UserError, match=r"holds no text \(no file like train\.idx\); make one with"):
        open_dictionary(tmp_path)
    put(put(tmp_path, "train"), "train.en-None.en")
    with pytest.raises(UserError, match=r"holds several texts \(en, one without a language\); put each into"):
        open_dictionary(tmp_path)


@pytest.mark.parametrize("pattern", ["{}", "{}.en-None.en"])
def test_a_missing_split_lists_those_that_are_there(pattern: str, tmp_path: Path) -> None:
    for split in ("train", "valid"):
        put(tmp_path, pattern.format(split))
    file = re.escape(pattern.format("test") + ".idx")
    with pytest.raises(UserError, match=rf"has no split 'test' \({file}\); it has: train, valid"):
        open_monolingual(tmp_path, "test", DICTIONARY)


def test_what_no_model_can_learn_from_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train\.bin holds no sentences"):
        open_monolingual(put(tmp_path, "train", []), "train", DICTIONARY)
    with pytest.raises(UserError, match=r"train\.bin has rows that do not end with </s>"):
        open_monolingual(put(tmp_path, "train", [[4, 2], [5]]), "train", DICTIONARY)
    small = Dictionary.build(dict.fromkeys("abcd", 1))
    with pytest.raises(UserError, match=r"train\.bin, row 1: id 8 is beyond the dictionary of 8 symbols"):
        open_monolingual(put(tmp_path, "train", [[4, 2], [8, 2]]), "train", small)
    with pytest.raises(UserError, match=r"dict\.txt"):
        open_dictionary(tmp_path)
    (tmp_path / "train.idx").write_bytes(b"hello")
    with pytest.raises(UserError, match=r"train\.idx is not an \.idx file"):
        open_monolingual(tmp_path, "train", DICTIONARY)


def test_sources_to_translate_are_no_text_of_a_language_model(tmp_path: Path) -> None:
    put(tmp_path, "test.en-de.en")
    with pytest.raises(UserError, match=r"holds the source side of en-de.*without --target-lang"):
        open_dictionary(tmp_path)
