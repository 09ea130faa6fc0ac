"""SentencePiece in the data folder, and the ways back to words that fairseq knows."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
from byte_fallback import byte_fallback_model

from seqba.data.dictionary import Dictionary
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


@pytest.fixture(scope="module")
def byte_fallback() -> Subwords:
    """A model that spells the characters that it doesn't know in bytes."""
    return Subwords(byte_fallback_model())


@pytest.mark.parametrize("line", ["the ☃ is small .", "☃", "☃☃ the☃ 😀a é", "the <0xE2> is small", "ﬁ\u00a0the"])
def test_bytes_are_decoded_as_sentencepiece_does(byte_fallback: Subwords, line: str) -> None:
    processor = sentencepiece.SentencePieceProcessor(model_proto=byte_fallback.model)
    pieces = byte_fallback.encode(line)
    assert any(piece.startswith("<0x") for piece in pieces) == any(map(processor.IsByte, processor.Encode(line)))
    assert byte_fallback.decode(pieces) == processor.DecodePieces(pieces)
    assert remove_bpe(" ".join(pieces), "sentencepiece") == processor.DecodePieces(pieces)


def test_any_sequence_of_bytes_is_decoded_as_sentencepiece_does(byte_fallback: Subwords) -> None:
    processor = sentencepiece.SentencePieceProcessor(model_proto=byte_fallback.model)
    chance = np.random.default_rng(3)
    starts = [
        0xE2,
        0x98,
        0x83,
        0xF0,
        0x9F,
        0xC3,
        0xA9,
        0xED,
        0xA0,
        0x80,
        0xF4,
        0x90,
        0xFF,
        0xC0,
        0x41,
        0xEF,
        0xBF,
        0xBD,
    ]
    texts = ["▁the", "a", "▁", "▁small"]
    for _ in range(300):
        pieces = ["a"]
        for _ in range(chance.integers(1, 7)):
            pieces.append(f"<0x{chance.choice(starts):02X}>" if chance.random() < 0.8 else str(chance.choice(texts)))
        pieces.append("a")  # what stands at an end may be blank, and is cut off as in fairseq
        assert byte_fallback.decode(pieces) == processor.DecodePieces(pieces), pieces
        assert remove_bpe(" ".join(pieces), "sentencepiece") == processor.DecodePieces(pieces)


def test_bytes_never_break_a_line(byte_fallback: Subwords) -> None:
    assert byte_fallback.decode(["▁a", "<0x0A>", "a", "<0x0D>", "<0x0A>", "a"]) == "a a  a"
    assert byte_fallback.decode(["▁a", "<0xE2>", "<0x96>", "<0x81>", "a"]) == "a▁a"  # its own character, not a space


def test_what_looks_like_a_byte_is_text_to_a_model_without_them(subwords: Subwords) -> None:
    assert subwords.decode(["▁the", "<0xE2>", "▁dog"]) == "the<0xE2> dog"
    assert subwords.spell(["▁the", "<0xE2>"]) == ["▁the", "<0xE2>"]


def test_bytes_are_spelt_in_their_place(byte_fallback: Subwords) -> None:
    assert byte_fallback.spell(byte_fallback.encode("the ☃ is")) == ["▁the", "▁", "☃", "▁is"]


def test_the_same_text_gives_the_same_model(subwords: Subwords) -> None:
    assert train_subwords(iter(TEXT * 5), 80).model == subwords.model


def test_a_model_goes_through_its_file_and_between_processes(subwords: Subwords, tmp_path: Path) -> None:
    assert load_subwords(tmp_path, "en", Dictionary()) is None
    (tmp_path / MODEL_NAME).write_bytes(subwords.model)
    loaded = load_subwords(tmp_path, "en", Dictionary())
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
        load_subwords(tmp_path, "en", Dictionary())


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
        ("▁ <0xE2> <0x98> <0x83> ▁ist <0xE2>", "sentencepiece", "☃ ist\ufffd"),
        ("<0xe2> <0xE2", "sentencepiece", "<0xe2><0xE2"),
        ("<0xE2> <0x98> <0x83>", "subword_nmt", "<0xE2> <0x98> <0x83>"),
        ("un gut_EOW ist_EOW", "_EOW", "ungut ist"),
        ("un~~ gut", "~~ ", "ungut"),
        ("un@@ gut", None, "un@@ gut"),
        ("un@@ gut", "none", "un@@ gut"),
    ],
)
def test_words_are_put_together_as_in_fairseq(text: str, symbol: str | None, words: str) -> None:
    assert remove_bpe(text, symbol) == words
