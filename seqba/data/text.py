"""Text files in pieces: found without reading them, read by any process, worked on in order."""

from __future__ import annotations

import codecs
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from seqba.data.files import open_file
from seqba.data.lines import (
    BYTE_ORDER_MARK,
    HEAD_BYTES,
    check_is_text,
    count_line_ends,
    decode_text,
    not_utf8,
    split_lines,
)

PIECE_BYTES = 1 << 22
REMEDY = "check the prefix and the language"


class TextPiece(Protocol):
    """Some lines of a text, one after the other; goes between processes by its description alone."""

    @property
    def size(self) -> int:
        """Bytes, as a progress bar counts them."""
        ...

    def lines(self) -> list[str]:
        """The lines, without their ends.

        Raises:
            UserError: for what is no text, or can't be read.
        """
        ...


class Text(Protocol):
    """One side of a corpus: lines of a file, or a column of a table (see `seqba.data.tables`).

    Its `str` is what messages call it.
    """

    def pieces(self) -> Sequence[TextPiece]:
        """The pieces, which depend on the file alone."""
        ...

    def count_lines(self) -> int:
        """Number of lines; everything is read, and must be text.

        Raises:
            UserError: for what is no text, or can't be read.
        """
        ...


@dataclass(frozen=True)
class PlainText:
    """A file of lines."""

    path: str

    def __str__(self) -> str:
        """Its path."""
        return self.path

    def pieces(self) -> Sequence[TextPiece]:
        """See `split_text`."""
        return split_text(self.path)

    def count_lines(self) -> int:
        """See `count_lines`."""
        return count_lines(self.path)


@dataclass(frozen=True)
class Piece:
    """Whole lines of a text file: its bytes from `start` up to `end`."""

    path: str | Path
    start: int
    end: int

    @property
    def size(self) -> int:
        """Bytes."""
        return self.end - self.start

    def first_line(self) -> int:
        """Number of its first line in the file, from 1; reads what is before."""
        return _count_line_ends(self.path, self.start) + 1

    def lines(self) -> list[str]:
        """The lines, without their ends (see `seqba.data.lines`).

        Raises:
            UserError: if the bytes are not UTF-8; the message names the line.
        """
        with open_file(self.path, "text", REMEDY) as file:
            file.seek(self.start)
            data = file.read(self.end - self.start)
        where = f"text {self.path}"
        if self.start == 0:
            return split_lines(decode_text(data, where))
        try:
            return split_lines(data.decode("utf-8"))
        except UnicodeDecodeError as error:
            line = _count_line_ends(self.path, self.start + error.start) + 1
            raise not_utf8(where, line, data[error.start]) from None


def split_text(path: str | Path, piece_bytes: int = PIECE_BYTES) -> list[Piece]:
    """Divides a text file into pieces of about `piece_bytes`, cut after newlines.

    The pieces depend on the file alone, never on the number of workers. A line longer than a piece stays whole.

    Raises:
        UserError: if the file cannot be read.
    """
    with open_file(path, "text", REMEDY) as file:
        size = file.seek(0, 2)
        cuts = [0]
        while cuts[-1] < size:
            file.seek(min(cuts[-1] + piece_bytes, size))
            file.readline()
            cuts.append(file.tell())
    return [Piece(path, start, end) for start, end in itertools.pairwise(cuts)]


@dataclass
class _LineEnds:
    """Line ends of a file that comes in blocks."""

    count: int = 0
    last: bytes = b""

    def add(self, block: bytes) -> None:
        r"""Adds the next block; a `\r\n` may be cut in two by the blocks."""
        self.count += count_line_ends(block) - (self.last == b"\r" and block.startswith(b"\n"))
        self.last = block[-1:] or self.last


def count_lines(path: str | Path) -> int:
    """Number of lines as `Piece.lines` sees them; everything is read, and must be text.

    Raises:
        UserError: if the file cannot be read or is not UTF-8 text.
    """
    ends = _LineEnds()
    decoder = codecs.getincrementaldecoder("utf-8")()
    with open_file(path, "text", REMEDY) as file:
        head = file.read(HEAD_BYTES)
        check_is_text(head, f"text {path}")
        file.seek(len(BYTE_ORDER_MARK) if head.startswith(BYTE_ORDER_MARK) else 0)
        more = True
        while more:
            block = file.read(PIECE_BYTES)
            more = len(block) > 0
            try:
                decoder.decode(block, final=not more)
            except UnicodeDecodeError as error:
                line = _count_line_ends(path, file.tell() - len(error.object) + error.start) + 1
                raise not_utf8(f"text {path}", line, error.object[error.start], head) from None
            ends.add(block)
    return ends.count + (ends.last not in (b"", b"\n", b"\r"))


def _count_line_ends(path: str | Path, stop: int) -> int:
    """How many line ends a file has before byte `stop`."""
    ends = _LineEnds()
    with open_file(path, "text", REMEDY) as file:
        while block := file.read(min(PIECE_BYTES, stop - file.tell())):
            ends.add(block)
    return ends.count
