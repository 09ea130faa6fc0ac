"""What ends a line, what a byte order mark is worth, and which bytes are no text."""

from __future__ import annotations

import gzip
import io
import itertools
from pathlib import Path

import pytest

from seqba.data.files import read_lines
from seqba.data.lines import check_is_text, count_line_ends, decode_text, iterate_lines, split_lines
from seqba.data.text import count_lines, split_text
from seqba.errors import UserError

MARK = b"\xef\xbb\xbf"
PARTS = ["a", "\n", "\r", "\r\n", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029", ""]


def contents() -> list[bytes]:
    """Every sequence of three of the parts between two words, with and without a line end at the end."""
    middle = {"".join(parts) for parts in itertools.product(PARTS, repeat=3)}
    return [f"x{text}y{end}".encode() for text in sorted(middle) for end in ("", "\n", "\r", "\n\n")]


def test_every_reader_sees_the_lines_of_pythons_text_mode(tmp_path: Path) -> None:
    path = tmp_path / "text"
    for content in [b"", b"\n", b"\r", b"\n\n", *contents()[::37]]:
        expected = [line.removesuffix("\n") for line in io.TextIOWrapper(io.BytesIO(content), encoding="utf-8")]
        for mark in (b"", MARK):
            path.write_bytes(mark + content)
            assert read_lines(path, "text") == expected
            assert list(iterate_lines(io.BytesIO(mark + content), "text")) == expected
            assert [line for piece in split_text(path, 2) for line in piece.lines()] == expected
            assert count_lines(path) == len(expected)


def test_line_ends_are_counted_as_they_split() -> None:
    for content in contents():
        lines = split_lines(content.decode())
        assert len(lines) - (not content.endswith((b"\n", b"\r"))) == count_line_ends(content)


def test_a_mark_within_the_text_is_text(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_bytes(MARK + MARK + b"a\n" + MARK + b"b\n")
    assert read_lines(path, "text") == ["\ufeffa", "\ufeffb"]
    assert [line for piece in split_text(path, 1) for line in piece.lines()] == ["\ufeffa", "\ufeffb"]
    assert list(iterate_lines(io.BytesIO(path.read_bytes()), "text")) == ["\ufeffa", "\ufeffb"]


def test_nothing_but_a_mark_is_empty(tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(MARK)
    assert read_lines(tmp_path / "text", "text") == []
    assert count_lines(tmp_path / "text") == 0


NO_TEXT = {
    "a b\n".encode("utf-16"): "is UTF-16 text, not UTF-8 text: convert it (iconv -f utf-16 -t utf-8)",
    b"\xfe\xff" + "a b\n".encode("utf-16-be"): "is UTF-16 text, not UTF-8 text",
    "a b\n".encode("utf-32"): "is UTF-32 text, not UTF-8 text",
    "a b\n".encode("utf-16-le"): "is not UTF-8 text: it is full of NUL bytes",
    bytes(100): "is not UTF-8 text: it is full of NUL bytes",
    gzip.compress(b"a b\n", mtime=0): "is a gzip file, not UTF-8 text: unpack it first",
    b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR": "is a PNG picture, not UTF-8 text",
    b"\xff\xd8\xff\xe0\0\x10JFIF": "is a JPEG picture, not UTF-8 text",
    b"PK\x03\x04\x14\0\0\0archive": "is a zip archive (as checkpoints are), not UTF-8 text",
    b"II*\0\x08\0\0\0": "is a TIFF picture, not UTF-8 text",
    b"RIFF\x24\xf0\0\0WEBPVP8 ": "is a RIFF file (a WebP picture or sound), not UTF-8 text",
    b"BZh91AY&SY\x8b\xff": "is a bzip2 file, not UTF-8 text",
    b"%PDF-1.4\n\xe2\xe3\xcf\xd3\n": "is a PDF document, not UTF-8 text",
    b"a\nb\r\nc\rd\xe9\n": "line 4: byte 0xe9 is not UTF-8; convert the file (iconv -t utf-8) or mend the line",
    b"a\nb\xc3": "line 2: byte 0xc3 is not UTF-8",
}


@pytest.mark.parametrize(("content", "message"), NO_TEXT.items(), ids=lambda each: repr(each)[:30])
def test_bytes_that_are_no_text_are_called_that(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "train.en"
    path.write_bytes(content)
    for read in (
        lambda: read_lines(path, "text"),
        lambda: count_lines(path),
        lambda: list(iterate_lines(io.BytesIO(content), f"text {path}")),
        lambda: [piece.lines() for piece in split_text(path)],
    ):
        with pytest.raises(UserError) as caught:
            read()
        assert str(caught.value).startswith(f"text {path}")
        assert message in str(caught.value)


def test_a_bad_byte_is_found_across_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "text"
    path.write_bytes(MARK + "größe\r\n".encode() * 3 + b"\xe2\x98 no\n")
    for size in (1, 2, 3, 5, 1000):
        monkeypatch.setattr("seqba.data.text.PIECE_BYTES", size)
        with pytest.raises(UserError, match="line 4: byte 0xe2 is not UTF-8"):
            count_lines(path)


def test_odd_text_is_text() -> None:
    for text in (b"BZh is no word", b"%PDF- either", b"one \0 within a line of a corpus from the web", b"\x1b[0m"):
        check_is_text(text, "text")
        assert decode_text(text, "text") == text.decode()
