"""Merges of both kinds of BPE, and the models that have none."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import sentencepiece
from byte_fallback import byte_fallback_model

from seqba.data.dictionary import Dictionary
from seqba.data.merges import load_merges, merges_of_sentencepiece, read_codes
from seqba.data.subwords import Subwords, train_subwords
from seqba.errors import UserError

TEXT = ["low lower lowest", "new newer newest", "wide wider widest"]


def test_pieces_of_sentencepiece_are_taken_apart_into_characters() -> None:
    subwords = train_subwords(TEXT * 5, 40)
    merges = merges_of_sentencepiece(subwords, "a model")
    piece = max(subwords.scores(), key=len)
    token = merges.take_apart(piece)
    assert token.symbols == tuple(piece)
    assert (token.begins, token.goes_on) == (piece.startswith("▁"), True)
    assert merges.token(piece) == piece
    assert min(merges.ranks.values()) == 0


def test_what_merges_do_not_make_is_one_piece() -> None:
    merges = merges_of_sentencepiece(Subwords(byte_fallback_model()), "a model")
    for token in ("<unk>", "<0xE2>", ">>fra<<", "madeupword0000"):
        assert merges.take_apart(token).symbols == ()


def test_subwords_of_subword_nmt_say_whether_their_word_goes_on(tmp_path: Path) -> None:
    (tmp_path / "bpe.codes").write_text("#version: 0.2\nl o\nlo w</w>\nlo w\nl o\n", encoding="utf-8")
    merges = load_merges(tmp_path, "en", Dictionary())
    assert merges.ranks == {("l", "o"): 0, ("lo", "w</w>"): 1, ("lo", "w"): 2}  # the first of two counts
    assert merges.take_apart("low@@").symbols == ("l", "o", "w")
    assert merges.take_apart("low").symbols == ("l", "o", "w</w>")
    assert (merges.take_apart("low@@").goes_on, merges.take_apart("low").goes_on) == (True, False)
    assert merges.take_apart("wol").symbols == ()
    assert [merges.token(symbol) for symbol in ("lo", "low</w>")] == ["lo@@", "low"]


def test_a_model_of_a_language_goes_before_that_of_both(tmp_path: Path) -> None:
    subwords = train_subwords(TEXT * 5, 40)
    for name in ("sentencepiece.model", "sentencepiece.en.model"):
        (tmp_path / name).write_bytes(subwords.model)
        assert load_merges(tmp_path, "en", Dictionary()).where == str(tmp_path / name)
    assert load_merges(tmp_path, "de", Dictionary()).where == str(tmp_path / "sentencepiece.model")


def test_a_folder_without_merges_is_refused_with_the_two_that_there_could_be(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds neither sentencepiece\.model .* nor bpe\.codes"):
        load_merges(tmp_path, "en", Dictionary())


def test_a_unigram_model_is_refused(tmp_path: Path) -> None:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.Train(
        sentence_iterator=iter(TEXT * 5), model_writer=model, vocab_size=20, model_type="unigram", num_threads=1,
        minloglevel=2,
    )  # fmt: skip
    (tmp_path / "sentencepiece.model").write_bytes(model.getvalue())
    with pytest.raises(UserError, match=r"sentencepiece\.model is a SentencePiece model of another type \(unigram"):
        load_merges(tmp_path, "en", Dictionary())


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("l o\n", "begins with 'l o'"),
        ("", "begins with ''"),
        ("#version: 0.2\nl o\nlow\n", "line 3 is 'low', not two subwords"),
        ("#version: 0.2\nl o w\n", "line 2 is 'l o w', not two subwords"),
    ],
)
def test_codes_that_are_none_are_refused(text: str, complaint: str, tmp_path: Path) -> None:
    (tmp_path / "bpe.codes").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=complaint):
        read_codes(tmp_path / "bpe.codes")
