"""Dictionaries: fairseq's order, numbering and file, and every way in which the file can be wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from seqba.data.dictionary import Dictionary
from seqba.errors import UserError


def test_special_symbols_come_first_and_are_not_written(tmp_path: Path) -> None:
    dictionary = Dictionary.build({"b": 2, "a": 2, "c": 3}, padding_factor=1)
    assert dictionary.symbols == ["<s>", "<pad>", "</s>", "<unk>", "c", "a", "b"]
    assert (dictionary.bos, dictionary.pad, dictionary.eos, dictionary.unk) == (0, 1, 2, 3)
    dictionary.save(tmp_path / "dict.en.txt")
    assert (tmp_path / "dict.en.txt").read_bytes() == b"c 3\na 2\nb 2\n"


def test_ties_are_in_code_point_order() -> None:
    words = dict.fromkeys(["zebra", "Zebra", "äh", "apple", "😀", "10"], 5)
    assert Dictionary.build(words, padding_factor=1).symbols[4:] == ["10", "Zebra", "apple", "zebra", "äh", "😀"]


def test_the_size_is_padded_to_a_multiple_with_made_up_words() -> None:
    dictionary = Dictionary.build({"a": 9, "b": 8}, padding_factor=8)
    assert dictionary.symbols[4:] == ["a", "b", "madeupword0000", "madeupword0001"]
    assert dictionary.counts[4:] == [9, 8, 0, 0]
    assert len(Dictionary.build(dict.fromkeys("abcd", 1), padding_factor=8)) == 8


def test_a_made_up_word_of_the_text_itself_is_not_given_twice() -> None:
    dictionary = Dictionary.build({"madeupword0000": 7, "a": 1}, padding_factor=8)
    assert dictionary.symbols[4:] == ["madeupword0000", "a", "madeupword0001", "madeupword0002"]


def test_threshold_and_size_limit_the_words() -> None:
    counts = {"a": 5, "b": 4, "c": 3, "d": 2}
    assert Dictionary.build(counts, threshold=3, padding_factor=1).symbols[4:] == ["a", "b", "c"]
    assert Dictionary.build(counts, size=6, padding_factor=1).symbols[4:] == ["a", "b"]
    assert Dictionary.build(counts, size=3, padding_factor=1).symbols[4:] == []


def test_special_symbols_in_the_text_keep_their_ids() -> None:
    dictionary = Dictionary.build({"<unk>": 100, "</s>": 50, "a": 1}, padding_factor=1)
    assert dictionary.symbols[4:] == ["a"]
    assert dictionary.encode(["<unk>", "</s>", "a"]).tolist() == [3, 2, 4, 2]


def test_encoding_appends_the_end_and_decoding_drops_it() -> None:
    dictionary = Dictionary.build({"a": 2, "b": 1}, padding_factor=1)
    ids = dictionary.encode(["b", "never seen", "a"])
    assert ids.dtype == np.int64
    assert ids.tolist() == [5, 3, 4, 2]
    assert dictionary.decode([0, *ids, 1, 1]) == ["b", "<unk>", "a"]
    assert dictionary.encode([]).tolist() == [2]


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    dictionary = Dictionary.build({"größe": 3, "▁the": 2, "#": 1, "12": 1})
    dictionary.save(tmp_path / "dict.txt")
    loaded = Dictionary.load(tmp_path / "dict.txt")
    assert loaded == dictionary
    assert loaded.counts == dictionary.counts


def read_as_fairseq_does(text: str) -> dict[str, tuple[int, int]]:
    """Symbol → (id, count) by the lines of fairseq's `Dictionary.add_from_file` and `add_symbol`."""
    symbols: list[str] = ["<s>", "<pad>", "</s>", "<unk>"]
    counts, indices = [1, 1, 1, 1], {symbol: index for index, symbol in enumerate(symbols)}
    for full in text.splitlines():
        line, field = full.rstrip().rsplit(" ", 1)
        overwrite = field == "#fairseq:overwrite"
        if overwrite:
            line, field = line.rsplit(" ", 1)
        count = int(field)
        assert line not in indices or overwrite
        indices[line] = len(symbols)
        symbols.append(line)
        counts.append(count)
    return {symbol: (index, counts[index]) for symbol, index in indices.items()}


@pytest.mark.parametrize(
    "text",
    [
        "a -0\nb -1\n",
        "a +3\nb 1_000\nc 0007\nd -12345678901234567890123\n",
        "a \u0663\nb \uff13\nc \t4\n",
        "two words -5\n# 3\n3 3\n  2\n",
        "a -2\nb -1\na -7 #fairseq:overwrite\n<s> -1 #fairseq:overwrite\n",
        " 4\na -1\n",
    ],
)
def test_counts_are_read_as_fairseq_reads_them(tmp_path: Path, text: str) -> None:
    (tmp_path / "dict.txt").write_text(text, encoding="utf-8")
    dictionary = Dictionary.load(tmp_path / "dict.txt")
    expected = read_as_fairseq_does(text)
    found = {symbol: dictionary.index(symbol) for symbol in expected}
    assert {symbol: (index, dictionary.counts[index]) for symbol, index in found.items()} == {
        "<s>": (0, 1),
        "<pad>": (1, 1),
        "</s>": (2, 1),
        "<unk>": (3, 1),
        **expected,
    }
    dictionary.save(tmp_path / "again.txt")
    again = Dictionary.load(tmp_path / "again.txt")
    assert (again, again.counts) == (dictionary, dictionary.counts)
    again.save(tmp_path / "third.txt")
    assert (tmp_path / "third.txt").read_bytes() == (tmp_path / "again.txt").read_bytes()


def test_what_is_written_canonically_comes_out_byte_for_byte(tmp_path: Path) -> None:
    content = "größe -3\n▁the 0\na 7\n\u2028x -1\na -7 #fairseq:overwrite\n".encode()
    (tmp_path / "dict.txt").write_bytes(content)
    Dictionary.load(tmp_path / "dict.txt").save(tmp_path / "again.txt")
    assert (tmp_path / "again.txt").read_bytes() == content


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_byte_order_mark_is_no_part_of_the_first_symbol(tmp_path: Path, end: str) -> None:
    (tmp_path / "dict.txt").write_bytes(b"\xef\xbb\xbf" + f"a 3{end}b 2{end}".encode())
    dictionary = Dictionary.load(tmp_path / "dict.txt")
    assert (dictionary.symbols[4:], dictionary.counts[4:]) == (["a", "b"], [3, 2])


def test_an_overwritten_symbol_takes_the_later_id(tmp_path: Path) -> None:
    text = "a 9\nb 8\na 7 #fairseq:overwrite\n<unk> 1 #fairseq:overwrite\n"
    (tmp_path / "dict.txt").write_text(text)
    dictionary = Dictionary.load(tmp_path / "dict.txt")
    assert len(dictionary) == 8
    assert dictionary.index("a") == 6
    assert dictionary.decode([4, 5, 6]) == ["a", "b", "a"]
    dictionary.save(tmp_path / "again.txt")
    assert (tmp_path / "again.txt").read_text() == text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"dict\.txt is empty"),
        (b"a 1\nb\n", r"line 2: 'b' is not '<symbol> <count>'"),
        (b"a 1\nb two\n", r"line 2: 'b two' is not '<symbol> <count>'"),
        (b"a 1\nb \xc2\xb2\n", r"line 2: 'b ²' is not '<symbol> <count>'"),
        (b"a 1\n\nb 2\n", r"line 2: '' is not '<symbol> <count>'"),
        (b"a 1\nb 2.0\n", r"line 2: 'b 2\.0' is not"),
        (b"a 1\nb --2\n", r"line 2: 'b --2' is not"),
        (b"a 1\nb - 2 x\n", r"line 2: 'b - 2 x' is not"),
        (b"a 1\nb " + b"9" * 5000 + b"\n", r"line 2: 'b 9{58}' is not"),
        (b"\xff\xfea\0 \x001\0", r"dict\.txt is UTF-16 text, not UTF-8 text: convert it \(iconv -f utf-16"),
        (b"\x1f\x8b\x08\0", r"dict\.txt is a gzip file, not UTF-8 text: unpack it first"),
        (b"a 1\nb 1\na 1\n", r"line 3: 'a' is there twice"),
        (b"<pad> 1\n", r"line 1: '<pad>' is there twice"),
        (b"a 1\n\xff\xfe 1\n", r"line 2: byte 0xff is not UTF-8"),
        (b"x" * 1_000_000, r"line 1: 'x{60}' is not '<symbol> <count>'"),
    ],
)
def test_a_file_that_is_not_a_dictionary(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "dict.txt").write_bytes(content)
    with pytest.raises(UserError, match=message):
        Dictionary.load(tmp_path / "dict.txt")


def test_a_missing_dictionary(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"dictionary .*dict\.xx\.txt does not exist; check the folder and the language"
    ):
        Dictionary.load(tmp_path / "dict.xx.txt")
