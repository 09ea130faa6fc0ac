"""Ids back to text."""

from __future__ import annotations

import pytest

from seqba.data.dictionary import Dictionary
from seqba.data.subwords import train_subwords
from seqba.decoding.text import TextForm

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
    assert (form.is_plain, form.bleu_tokenizer) == (True, "13a")
    assert form.plain([]) == ""
