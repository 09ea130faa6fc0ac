"""Columns of files in which each row is a line: JSON lines and TSV.

JSON lines   each line is an object; `translation.en` is the key `en` of the object under `translation`
TSV          fields between tabs, as they are (no quoting); the first line names the columns, unless they are asked
             for by number, from 1
"""

from __future__ import annotations

import functools
import itertools
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from seqba.data.files import open_file
from seqba.data.lines import as_line, has_half_characters
from seqba.data.text import REMEDY, Piece, TextPiece, split_text
from seqba.errors import UserError, quoted

NAMED_COLUMNS = 20
LONGEST_NUMBER = 10
JSON_NAMES = {dict: "an object", list: "a list", str: "a text", bool: "a truth value", type(None): "null"}


def listed(names: Iterable[str]) -> str:
    """Names of columns for a message, the first ones of many."""
    some = list(itertools.islice(names, NAMED_COLUMNS + 1))
    return ", ".join(some[:NAMED_COLUMNS]) + (", …" if len(some) > NAMED_COLUMNS else "")


class _BadRow(Exception):
    """Fault of a row; the caller knows which one it is."""


@dataclass(frozen=True)
class RowPiece:
    """Rows of a file in which each is a line.

    Attributes:
        piece: the lines.
        value: finds the value in a line.
        header: whether the first line of the piece is no row.
    """

    piece: Piece
    value: Callable[[str], str]
    header: bool = False

    @property
    def size(self) -> int:
        """Bytes of the rows."""
        return self.piece.size

    def lines(self) -> list[str]:
        """The values of the rows.

        Raises:
            UserError: for a row without such a value, naming its line.
        """
        values: list[str] = []
        rows = self.piece.lines()[self.header :]
        try:
            for row in rows:
                values.append(as_line(self.value(row)))
        except _BadRow as error:
            number = self.piece.first_line() + self.header + len(values)
            raise UserError(f"{self.piece.path}, line {number} {error}") from None
        return values


@dataclass(frozen=True)
class Column(ABC):
    """A column of a table.

    Attributes:
        path: the file.
        name: of the column; `translation.en` is `en` inside `translation`.
    """

    path: str
    name: str

    def __str__(self) -> str:
        """Path and column."""
        return f"{self.path} ({self.name})"

    @abstractmethod
    def pieces(self) -> Sequence[TextPiece]:
        """See `seqba.data.text.Text`."""

    def count_lines(self) -> int:
        """Number of rows; everything is read."""
        return sum(len(piece.lines()) for piece in self.pieces())


@dataclass(frozen=True)
class JsonColumn(Column):
    """A column of JSON lines."""

    def pieces(self) -> Sequence[TextPiece]:
        """Pieces of about 4 MB, cut after newlines."""
        value = functools.partial(_json_value, name=self.name)
        return [RowPiece(piece, value) for piece in split_text(self.path)]


@dataclass(frozen=True)
class TsvColumn(Column):
    """A column of a TSV file."""

    def pieces(self) -> Sequence[TextPiece]:
        """Pieces of about 4 MB, cut after newlines.

        Raises:
            UserError: for a column that there isn't.
        """
        pieces = split_text(self.path)
        if not pieces:
            return []
        names = self._first_line(pieces[0]).split("\t")
        header = not (self.name.isdecimal() and len(self.name) < LONGEST_NUMBER)
        if not header and not 1 <= int(self.name) <= len(names):
            raise UserError(f"{self.path} has {len(names)} columns, and none of number {self.name}: they count from 1")
        if header and names.count(self.name) != 1:
            count = "no column" if self.name not in names else "several columns"
            raise UserError(f"{self.path} has {count} {quoted(self.name)}; its first line names: {listed(names)}")
        place = names.index(self.name) if header else int(self.name) - 1
        value = functools.partial(_tsv_value, place=place, width=len(names))
        return [RowPiece(piece, value, header=header and piece.start == 0) for piece in pieces]

    def _first_line(self, piece: Piece) -> str:
        with open_file(self.path, "text", REMEDY) as file:
            end = len(file.readline())
        return next(iter(Piece(piece.path, 0, end).lines()), "")


def _json_value(row: str, name: str) -> str:
    try:
        read = json.loads(row)
    except (ValueError, RecursionError) as error:
        reason = "it is empty" if not row.strip() else getattr(error, "msg", "").lower() or "no number, or too deep"
        raise _BadRow(f"is not JSON ({reason}): each line must be an object like {{{_example(name)}}}") from None
    if not isinstance(read, dict):
        raise _BadRow(f"is {_kind(read)}, not an object of JSON like {{{_example(name)}}}")
    try:
        value = _looked_up(read, name)
    except KeyError:
        raise _BadRow(f"has no {quoted(name)}; it has: {listed(_leaves(read)) or 'nothing'}") from None
    if not isinstance(value, str):
        raise _BadRow(f"has {_kind(value)} under {quoted(name)}, not a text")
    if has_half_characters(value):
        raise _BadRow(f"has a text under {quoted(name)} with half of a character (\\ud800 to \\udfff): mend it")
    return value


def _looked_up(row: Mapping[str, Any], name: str) -> Any:
    """The value under a name, taken whole where there is such a key, else followed at its first dot.

    Raises:
        KeyError: if there is none.
    """
    if name in row:
        return row[name]
    first, dot, rest = name.partition(".")
    inner = row.get(first)
    if not dot or not isinstance(inner, dict):
        raise KeyError(name)
    return _looked_up(inner, rest)


def _leaves(row: Mapping[str, Any], above: str = "") -> Iterator[str]:
    for name, value in row.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{above}{name}.")
        else:
            yield f"{above}{name}"


def _kind(value: Any) -> str:
    return JSON_NAMES.get(type(value), "a number")


def _example(name: str) -> str:
    first, *inner = name.split(".")
    return f'"{first}": "…"' if not inner else f'"{first}": {{{_example(".".join(inner))}}}'


def _tsv_value(row: str, place: int, width: int) -> str:
    fields = row.split("\t")
    if len(fields) != width:
        raise _BadRow(
            f"has {len(fields)} fields and the first line {width}: as many tabs must be in each, and none in a value"
        )
    return fields[place]
