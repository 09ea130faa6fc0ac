"""Ids back to text."""

from __future__ import annotations

from pathlib import Path

import pytest
from byte_fallback import byte_fallback_model

from seqba.data.dictionary import Dictionary
from seqba.data.moses import BytePairs, Moses
from seqba.data.subwords import Subwords, train_subwords
from seqba.decoding.detokenize import TextForm

TOKENS = Dictionary([("se@@", 3), ("chs", 2), (".", 1)])


@pytest.mark.parametrize(
    ("post_process", "expected"),
    [(None, "se@@ chs . <unk>"), ("subword_nmt", "sechs . <unk>"), ("@@ ", "sechs . <unk>")],
)
def test_tokens(post_process: str | None, expected: str) -> None:
    form = TextForm(TOKENS, None, post_process)
    ids = [0, 4, 5, 6, 3, 2, 1, 1]
    assert form.tokens(ids) == form.plain(ids) == expected
    assert form.tokens(ids, reference=True) == expected.replace("<unk>", "<<unk>>")
    assert (form.is_plain, form.bleu_tokenizer) == (False, "none")


def test_plain_text_from_the_data_bins_own_model() -> None:
    lines = ["A dog barks.", "A cat sleeps, a dog barks.", "Ein Hund bellt."]
    subwords = train_subwords(lines, 40)
    pieces = [subwords.encode(line) for line in lines]
    dictionary = Dictionary([(piece, 1) for piece in sorted({piece for line in pieces for piece in line})])
    form = TextForm(dictionary, subwords)
    for line, own in zip(lines, pieces, strict=True):
        ids = dictionary.encode(own).tolist()
        assert form.tokens(ids) == " ".join(own)
        assert form.plain(ids) == line
        assert TextForm(dictionary, subwords, "sentencepiece").tokens(ids) == line
        assert TextForm(dictionary, subwords, "sentencepiece").plain(ids) == line
        for symbol in ("subword_nmt", "@@ ", "none", ""):  # as command lines of other data have it: no joint of pieces
            assert TextForm(dictionary, subwords, symbol).plain(ids) == line
    assert (form.is_plain, form.bleu_tokenizer) == (True, "13a")
    assert form.plain([]) == ""


def test_bytes_of_a_model_with_byte_fallback_are_text() -> None:
    subwords = Subwords(byte_fallback_model())
    pieces = subwords.encode("the ☃ is")
    dictionary = Dictionary([(piece, 1) for piece in sorted({*pieces, "<0xC3>", "<0xA9>"})])
    ids = dictionary.encode(pieces).tolist()
    form = TextForm(dictionary, subwords)
    assert form.tokens(ids) == "▁the ▁ <0xE2> <0x98> <0x83> ▁is"  # the H- line has the pieces, as in fairseq
    assert form.shown(ids) == "▁the ▁ ☃ ▁is"
    assert form.plain(ids) == form.plain(ids, reference=True) == "the ☃ is"
    assert form.plain([*ids, Dictionary.unk], reference=True) == "the ☃ is<<unk>>"
    for joined in (TextForm(dictionary, subwords, "sentencepiece"), TextForm(dictionary, None, "sentencepiece")):
        assert joined.tokens(ids) == joined.plain(ids) == joined.shown(ids) == "the ☃ is"
    half = dictionary.encode(["▁the", "▁", "<0xC3>", "▁is", "<0xA9>"]).tolist()
    assert form.plain(half) == "the \ufffd is\ufffd"


def test_text_goes_through_moses_and_byte_pairs_both_ways(tmp_path: Path) -> None:
    (tmp_path / "codes").write_text("#version: 0.2\nc h\nch s</w>\ns e\n", encoding="utf-8")
    pairs = BytePairs(tmp_path / "codes")
    form = TextForm(TOKENS, pairs, None, Moses("de"))
    assert form.encode("sechs.").tolist() == [4, 5, 6, 2]
    assert form.tokens([4, 5, 6]) == form.shown([4, 5, 6]) == "se@@ chs ."
    assert form.plain([4, 5, 6]) == "sechs."
    assert (form.is_plain, form.bleu_tokenizer) == (True, "13a")
    joined = TextForm(TOKENS, pairs, "subword_nmt", Moses("de"))
    assert (joined.tokens([4, 5, 6]), joined.plain([4, 5, 6])) == ("sechs .", "sechs.")
    apart = TextForm(TOKENS, pairs)
    assert apart.encode("sechs .").tolist() == [4, 5, 6, 2]
    assert (apart.plain([4, 5, 6]), apart.is_plain) == ("sechs .", False)
