"""Hugging Face's tokenizers give here what they give there."""

from __future__ import annotations

import json
import pickle
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tokenizers", reason="pip install -e .[tokenizers]")

import tokenizers
from toy_tokenizers import KINDS, TEXT, UNKNOWN, write_tokenizer

from seqba.data.dictionary import Dictionary
from seqba.data.merges import load_merges
from seqba.data.subwords import load_subwords
from seqba.data.tokenizer_json import JsonTokenizer, read_tokenizer
from seqba.decoding.detokenize import TextForm
from seqba.errors import UserError

LINES = [*TEXT, "", "a new  dog über\tFox", "<2de> the dog", " dog ", "the dog " * 60]


@pytest.fixture(params=KINDS)
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return write_tokenizer(tmp_path / "tokenizer.json", request.param)


def test_tokens_and_text_are_the_librarys_own(path: Path) -> None:
    ours, theirs = read_tokenizer(path), tokenizers.Tokenizer.from_file(str(path))
    theirs.no_truncation()
    theirs.no_padding()
    dictionary = ours.dictionary(8)
    form = TextForm(dictionary, ours)
    assert form.is_plain
    for line in LINES:
        expected = theirs.encode(line, add_special_tokens=False)
        text = theirs.decode(expected.ids, skip_special_tokens=False).replace("[UNK]", "<unk>")
        tokens = ours.encode(line)
        assert [token.replace("<unk>", "[UNK]") for token in tokens] == [
            token.replace("<unk>", "[UNK]") for token in map(theirs.id_to_token, expected.ids)
        ]
        assert ours.decode(tokens) == text
        ids = form.encode(line)
        assert len(ids) == len(expected.ids) + 1
        assert form.plain(ids) == text
    assert ours.encode_lines(LINES) == [ours.encode(line) for line in LINES]
    assert pickle.loads(pickle.dumps(ours)).encode(TEXT[0]) == ours.encode(TEXT[0])  # noqa: S301 - our own


def test_the_dictionary_is_the_whole_vocabulary_in_its_order(path: Path, tmp_path: Path) -> None:
    ours, theirs = read_tokenizer(path), tokenizers.Tokenizer.from_file(str(path))
    dictionary = ours.dictionary(8)
    assert len(dictionary) % 8 == 0
    assert len(ours.dictionary(1)) - 4 == sum(
        theirs.id_to_token(number) not in ("<s>", "<pad>", "</s>", "<unk>", "[UNK]")
        for number in range(theirs.get_vocab_size())
    )
    numbers = [theirs.token_to_id(symbol) for symbol in ours.dictionary(1).symbols[4:]]
    assert numbers == sorted(numbers)
    dictionary.save(tmp_path / "dict.txt")
    assert Dictionary.load(tmp_path / "dict.txt") == dictionary
    assert load_subwords(tmp_path, "en", dictionary).model == path.read_bytes()  # type: ignore[union-attr]


def test_symbols_with_line_ends_are_left_out(tmp_path: Path) -> None:
    """A tokenizer that was trained on files has their line ends in its vocabulary; no line has any."""
    theirs = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token=UNKNOWN[0]))
    theirs.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    trainer = tokenizers.trainers.BpeTrainer(special_tokens=["<unk>"], show_progress=False)
    theirs.train_from_iterator(["the dog\n", "the fox\r\n"] * 5, trainer)
    theirs.save(str(tmp_path / "tokenizer.json"))
    assert theirs.token_to_id("\n") is not None
    tokenizer = read_tokenizer(tmp_path / "tokenizer.json")
    dictionary = tokenizer.dictionary(1)
    assert not any("\n" in symbol or "\r" in symbol for symbol in dictionary.symbols)
    assert Dictionary.unk not in dictionary.encode(tokenizer.encode("the dog the fox"))
    dictionary.save(tmp_path / "dict.txt")
    assert Dictionary.load(tmp_path / "dict.txt") == dictionary


def test_unknown_text_is_unk_and_stays_visible(tmp_path: Path) -> None:
    for kind in ("unigram", "word-piece"):
        tokenizer = read_tokenizer(write_tokenizer(tmp_path / "tokenizer.json", kind))
        tokens = tokenizer.encode("the ☃ dog")
        ids = tokenizer.dictionary(8).encode(tokens)
        assert (ids == Dictionary.unk).sum() == 1
        assert "<unk>" in tokenizer.decode(tokenizer.dictionary(8).decode(ids))


def test_no_text_is_unknown_to_bytes_and_line_ends_become_spaces(tmp_path: Path) -> None:
    tokenizer = read_tokenizer(write_tokenizer(tmp_path / "tokenizer.json"))
    line = "the ☃ 😀\u2028 dog\x00"
    assert tokenizer.decode(tokenizer.encode(line)) == line
    assert tokenizer.decode(tokenizer.encode("a\nb\r\nc")) == "a b c"
    assert tokenizer.decode(["<unk>", *tokenizer.encode(" dog"), "<unk>"]) == "<unk> dog<unk>"


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[]", b"\xff", b'{"model": {"type": "BPE"}}', b'{"model": {"type": "None"}}']
)
def test_what_is_no_tokenizer_is_one_line(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "t.json").write_bytes(content)
    with pytest.raises(UserError, match=r"tokenizer .*t\.json is no tokenizer of Hugging Face's tokenizers \("):
        read_tokenizer(tmp_path / "t.json")
    with pytest.raises(UserError, match=r"tokenizer .*absent\.json does not exist"):
        read_tokenizer(tmp_path / "absent.json")


def test_damaged_files_are_read_or_refused_in_one_line(path: Path) -> None:
    content = path.read_bytes()
    chance = np.random.default_rng(4)
    for _ in range(150):
        damaged = bytearray(content)
        for place in chance.integers(len(content), size=chance.integers(1, 4)):
            damaged[place] = chance.integers(256)
        with suppress(UserError):
            tokenizer = JsonTokenizer(bytes(damaged))
            tokenizer.decode(tokenizer.encode(TEXT[0]))
            tokenizer.dictionary(8)


def test_a_vocabulary_without_end_is_refused(tmp_path: Path) -> None:
    content = json.loads(write_tokenizer(tmp_path / "t.json", "word-piece").read_text())
    content["model"]["vocab"]["far"] = 4_000_000_000
    with pytest.raises(UserError, match="has ids up to 4000000000"):
        JsonTokenizer(json.dumps(content).encode())


def test_a_vocabulary_without_its_unknown_token_is_told_when_it_is_missed(tmp_path: Path) -> None:
    content = json.loads(write_tokenizer(tmp_path / "t.json", "word-piece").read_text())
    del content["model"]["vocab"]["[UNK]"]
    tokenizer = JsonTokenizer(json.dumps({**content, "added_tokens": []}).encode())
    with pytest.raises(UserError, match=r"tokenizer\.json can't encode a line \(WordPiece error: Missing"):
        tokenizer.encode("☃")


def test_subwords_of_a_tokenizer_are_not_sampled(path: Path) -> None:
    with pytest.raises(UserError, match=r"--subword-sampling .* has a tokenizer\.json: leave it out"):
        load_merges(path.parent, "en", read_tokenizer(path).dictionary(8))
