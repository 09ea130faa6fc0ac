"""Columns of Parquet files, read by row groups."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from seqba.data.files import open_file
from seqba.data.lines import as_line
from seqba.data.row_files import Column, listed
from seqba.data.text import PIECE_BYTES, REMEDY, TextPiece
from seqba.errors import UserError, quoted
from seqba.extras import needed

PURPOSE = "a .parquet text"


@dataclass(frozen=True)
class ParquetPiece:
    """A column of some row groups.

    Attributes:
        path: the file.
        column: its name; `translation.en` is a field of a struct.
        groups: numbers of the row groups, from `groups[0]` up to `groups[1]`.
        first_row: number of the first row, from 1.
        size: bytes of all columns of the groups, unpacked.
    """

    path: str
    column: str
    groups: tuple[int, int]
    first_row: int
    size: int

    def lines(self) -> list[str]:
        """The values.

        Raises:
            UserError: for a value that is null, or a file that is damaged.
        """
        with _opened(self.path) as file:
            table = file.read_row_groups(list(range(*self.groups)), columns=[self.column], use_threads=False)
            values: list[str | None] = _find(table, self.column).to_pylist()
        if None in values:
            row = self.first_row + values.index(None)
            raise UserError(f"{self.path}, row {row} has null under {quoted(self.column)}, not a text")
        return [as_line(value) for value in values if value is not None]


@dataclass(frozen=True)
class ParquetColumn(Column):
    """A column of a Parquet file."""

    def pieces(self) -> Sequence[TextPiece]:
        """Pieces of one row group or, where these are small, of several that have about 4 MB.

        Raises:
            UserError: for a column that there isn't, or that holds no text.
        """
        with _opened(self.path) as file:
            self._check_column(file.schema_arrow)
            groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
            rows, sizes = [group.num_rows for group in groups], [group.total_byte_size for group in groups]
        starts = [0, *itertools.accumulate(rows)]
        cuts = _cuts(sizes)
        return [
            ParquetPiece(self.path, self.name, (start, end), starts[start] + 1, sum(sizes[start:end]))
            for start, end in itertools.pairwise(cuts)
        ]

    def _check_column(self, schema: Any) -> None:
        types = needed("pyarrow", PURPOSE).types
        leaves = dict(_leaves(schema))
        if self.name not in leaves:
            raise UserError(f"{self.path} has no column {quoted(self.name)}; it has: {listed(leaves)}")
        kind = leaves[self.name]
        plain = kind.value_type if types.is_dictionary(kind) else kind
        if not (types.is_string(plain) or types.is_large_string(plain) or types.is_string_view(plain)):
            raise UserError(f"{self.path} has {kind} in its column {quoted(self.name)}, not text (string)")


def _cuts(sizes: Sequence[int]) -> list[int]:
    """Beginnings of pieces of about `PIECE_BYTES`, and the end of the last."""
    cuts, size = [0], 0
    for number, own in enumerate(sizes, 1):
        size += own
        if size >= PIECE_BYTES or number == len(sizes):
            cuts.append(number)
            size = 0
    return cuts


def _leaves(fields: Any, above: str = "") -> Iterator[tuple[str, Any]]:
    """Names and types of the columns, those inside structs with dots between."""
    for field in fields:
        if needed("pyarrow", PURPOSE).types.is_struct(field.type):
            yield from _leaves(field.type, f"{above}{field.name}.")
        else:
            yield f"{above}{field.name}", field.type


def _find(table: Any, name: str) -> Any:
    """A column of a table, `translation.en` in its struct."""
    compute = needed("pyarrow.compute", PURPOSE)
    first = next(own for own in table.column_names if name == own or name.startswith(f"{own}."))
    column, rest = table.column(first), name[len(first) + 1 :]
    while rest:
        names = [field.name for field in column.type]
        inner = next(own for own in names if rest == own or rest.startswith(f"{own}."))
        column, rest = compute.struct_field(column, names.index(inner)), rest[len(inner) + 1 :]
    return column


@contextmanager
def _opened(path: str) -> Iterator[Any]:
    """A Parquet file; whatever pyarrow finds wrong with it is one line.

    Raises:
        UserError: for a file that is missing, of another kind or damaged.
    """
    arrow, parquet = needed("pyarrow", PURPOSE), needed("pyarrow.parquet", PURPOSE)
    open_file(path, "text", REMEDY).close()
    try:
        with parquet.ParquetFile(path, page_checksum_verification=True) as file:
            yield file
    except (arrow.ArrowException, OSError, ValueError, MemoryError) as error:
        reason = "".join(filter(str.isprintable, str(error)))[:200]
        raise UserError(f"{path} is damaged, or no Parquet file ({reason}): write or fetch it anew") from None
