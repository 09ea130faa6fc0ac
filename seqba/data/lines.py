r"""Bytes → lines, by one rule for every command: what ends a line, what a byte order mark is, which bytes are no text.

A line ends with `\n`, `\r\n` or `\r`, as in Python's text mode and so in fairseq; nothing else ends one (U+2028,
U+0085, form feeds and the like are whitespace within a line). What follows the last line end is a line unless it is
empty. A UTF-8 byte order mark at the beginning is no part of the text: it is read over.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator

from seqba.errors import UserError

BYTE_ORDER_MARK = codecs.BOM_UTF8
HEAD_BYTES = 1 << 13
"""What a file is called by, if it is no text."""

SURROGATE = re.compile("[\ud800-\udfff]")
CONVERT = "convert it (iconv -f {} -t utf-8)"
UNPACK = "unpack it first"
NO_TEXT = {
    b"\xff\xfe\x00\x00": ("UTF-32 text", CONVERT.format("utf-32")),
    b"\x00\x00\xfe\xff": ("UTF-32 text", CONVERT.format("utf-32")),
    b"\xff\xfe": ("UTF-16 text", CONVERT.format("utf-16")),
    b"\xfe\xff": ("UTF-16 text", CONVERT.format("utf-16")),
    b"\x1f\x8b": ("a gzip file", UNPACK),
    b"BZh": ("a bzip2 file", UNPACK),
    b"\xfd7zXZ": ("an xz file", UNPACK),
    b"\x28\xb5\x2f\xfd": ("a zstd file", UNPACK),
    b"PK\x03\x04": ("a zip archive (as checkpoints are)", "give the text itself"),
    b"\x89PNG": ("a PNG picture", "give a text"),
    b"\xff\xd8\xff": ("a JPEG picture", "give a text"),
    b"II*\x00": ("a TIFF picture", "give a text"),
    b"MM\x00*": ("a TIFF picture", "give a text"),
    b"RIFF": ("a RIFF file (a WebP picture or sound)", "give a text"),
    b"GIF8": ("a GIF picture", "give a text"),
    b"%PDF-": ("a PDF document", "give its plain text"),
    b"MMIDIDX": ("the index of a data-bin", "give the text that it was made from"),
    b"\x7fELF": ("a program", "give a text"),
}
"""What a file begins with → what it is, and what to do."""


def split_lines(text: str) -> list[str]:
    """The lines of a text, without their ends."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    if lines[-1] == "":  # what follows the last line's end is not a line
        lines.pop()
    return lines


def count_line_ends(data: bytes) -> int:
    """How many line ends some bytes hold."""
    count = data.count(b"\n")
    return count + data.count(b"\r") - data.count(b"\r\n") if b"\r" in data else count


def decode_text(data: bytes, where: str, *, line: int = 1, head: bytes | None = None) -> str:
    """UTF-8 → text, without the byte order mark at its beginning.

    Args:
        data: the bytes, which hold whole lines.
        where: their file, for messages.
        line: number of the first line, from 1.
        head: what the file begins with; None if it begins with `data`.

    Raises:
        UserError: for what is no text; or naming the first line that is not UTF-8.
    """
    if head is None:
        head = data[:HEAD_BYTES]
        check_is_text(head, where)
        data = data.removeprefix(BYTE_ORDER_MARK)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        number = line + count_line_ends(data[: error.start])
        raise not_utf8(where, number, data[error.start], head) from None


def iterate_lines(stream: Iterable[bytes], where: str) -> Iterator[str]:
    """The lines of an open binary file, each as soon as it is there.

    Raises:
        UserError: as `decode_text`.
    """
    number, head = 0, None
    for data in stream:  # up to the next \n
        lines = split_lines(decode_text(data, where, line=number + 1, head=head))
        yield from lines
        number += len(lines)
        head = data[:HEAD_BYTES] if head is None else head


def as_line(value: str) -> str:
    """A text as one line: line ends inside it count as spaces."""
    if "\n" not in value and "\r" not in value:
        return value
    return value.replace("\r\n", " ").replace("\n", " ").replace("\r", " ")


def has_half_characters(text: str) -> bool:
    """Whether a text has surrogates, which escapes of JSON can name and UTF-8 can't hold."""
    return not text.isascii() and SURROGATE.search(text) is not None


def check_is_text(head: bytes, where: str) -> None:
    """Refuses what can't be text, by its first bytes.

    Raises:
        UserError: calling it what it is.
    """
    magic = _find_magic(head)
    is_full_of_nul = 10 * head.count(0) > len(head)  # a stray one occurs in texts from the web
    if magic is not None and (is_full_of_nul or any(byte >= 0x80 or byte < 0x09 for byte in magic)):
        raise _no_text(where, magic)
    if is_full_of_nul:
        raise UserError(
            f"{where} is not UTF-8 text: it is full of NUL bytes, as UTF-16 text and binary files are; give a text, or "
            "convert it (iconv -f utf-16 -t utf-8)"
        )


def not_utf8(where: str, line: int, byte: int, head: bytes = b"") -> UserError:
    """The error for bytes that are not UTF-8.

    Args:
        where: their file.
        line: the first line that has such, from 1.
        byte: the first one.
        head: what the file begins with, to call it what it is where that is known.
    """
    magic = _find_magic(head)
    if magic is not None:
        return _no_text(where, magic)
    return UserError(
        f"{where}, line {line}: byte 0x{byte:02x} is not UTF-8; convert the file (iconv -t utf-8) or mend the line"
    )


def _find_magic(head: bytes) -> bytes | None:
    return next((magic for magic in NO_TEXT if head.startswith(magic)), None)


def _no_text(where: str, magic: bytes) -> UserError:
    kind, remedy = NO_TEXT[magic]
    return UserError(f"{where} is {kind}, not UTF-8 text: {remedy}")
