"""SentencePiece in the data folder, and the ways back to words that fairseq knows."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from seqba.data.subwords import MODEL_NAME, Subwords, load_subwords, remove_bpe, train_subwords
from seqba.errors import UserError

TEXT = [
    "the quick brown fox jumps over the lazy dog",
    "die schnelle Füchsin springt über den Hund",
    "the dog, the fox.",
]


@pytest.fixture(scope="module")
def subwords() -> Subwords:
    return train_subwords(TEXT * 5, 80)


def test_text_comes_back_from_its_pieces(subwords: Subwords) -> None:
    assert len(subwords) == 80
    for line in [*TEXT, "", "a new dog über Fox"]:
        assert subwords.decode(subwords.encode(line)) == line
    assert subwords.encode("the dog")[0] == "▁the"
    assert subwords.encode_lines(TEXT) == [subwords.encode(line) for line in TEXT]


def test_an_unknown_piece_stays_visible(subwords: Subwords) -> None:
    assert subwords.decode(["▁the", "▁", "<unk>", "▁dog"]) == "the <unk> dog"


def test_the_same_text_gives_the_same_model(subwords: Subwords) -> None:
    assert train_subwords(iter(TEXT * 5), 80).model == subwords.model


def test_a_model_goes_through_its_file_and_between_processes(subwords: Subwords, tmp_path: Path) -> None:
    assert load_subwords(tmp_path) is None
    (tmp_path / MODEL_NAME).write_bytes(subwords.model)
    loaded = load_subwords(tmp_path)
    assert loaded is not None
    assert loaded.encode(TEXT[1]) == subwords.encode(TEXT[1])
    assert pickle.loads(pickle.dumps(subwords)).encode(TEXT[1]) == subwords.encode(TEXT[1])  # noqa: S301 - our own


def test_the_vocabulary_lists_every_piece(subwords: Subwords) -> None:
    lines = subwords.vocabulary().splitlines()
    assert len(lines) == 80
    assert lines[0] == "<unk>\t0"


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x00" * 100])
def test_a_file_that_is_no_model(tmp_path: Path, content: bytes) -> None:
    (tmp_path / MODEL_NAME).write_bytes(content)
    with pytest.raises(UserError, match=r"sentencepiece\.model is not a SentencePiece model"):
        load_subwords(tmp_path)


def test_a_text_too_small_for_the_pieces() -> None:
    with pytest.raises(UserError, match=r"cannot learn 9000 pieces from this text: .*too high"):
        train_subwords(TEXT, 9000)
    with pytest.raises(UserError, match="cannot learn 10 pieces from this text"):
        train_subwords(TEXT, 10)
    with pytest.raises(UserError, match="cannot learn 10 pieces from this text"):
        train_subwords([], 10)


@pytest.mark.parametrize(
    ("text", "symbol", "words"),
    [
        ("un@@ glaub@@ lich gut", "@@ ", "unglaublich gut"),
        ("un@@ glaub@@ lich gu@@", "subword_nmt", "unglaublich gu"),
        ("un@@ gut", "@@", "ungut"),
        ("▁un gut ▁ist ▁es", "sentencepiece", "ungut ist es"),
        ("_un gut _ist", "wordpiece", "ungut ist"),
        ("u n | g u t |", "letter", "un gut"),
        ("un gut_EOW ist_EOW", "_EOW", "ungut ist"),
        ("un~~ gut", "~~ ", "ungut"),
        ("un@@ gut", None, "un@@ gut"),
        ("un@@ gut", "none", "un@@ gut"),
    ],
)
def test_words_are_put_together_as_in_fairseq(text: str, symbol: str | None, words: str) -> None:
    assert remove_bpe(text, symbol) == words
