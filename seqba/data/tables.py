"""Tables as texts: a column of JSON lines, TSV or Parquet gives what a file of lines gives.

A table is a file whose name ends in `.jsonl`, `.json`, `.tsv` or `.parquet`. Each row is an example, each value of a
column a line.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from seqba.data.parquet import ParquetColumn
from seqba.data.preprocess_options import PreprocessOptions
from seqba.data.row_files import JsonColumn, TsvColumn
from seqba.data.text import PlainText, Text
from seqba.errors import UserError

TABLES: dict[str, Callable[[str, str], Text]] = {
    ".jsonl": JsonColumn,
    ".json": JsonColumn,
    ".tsv": TsvColumn,
    ".parquet": ParquetColumn,
}
"""Suffix of a table's name → its kind."""


def open_text(path: str, column: str | None) -> Text:
    """A text by its path, and by its column where it is a table. Nothing is read yet.

    Raises:
        UserError: for a table without a column, or a column of a file that isn't a table by its name.
    """
    suffix = Path(path).suffix
    if column is None:
        table = path if Path(path).exists() else path.removesuffix(suffix)  # train.jsonl.en is train.jsonl's
        if Path(table).suffix in TABLES and Path(table).is_file():
            raise UserError(
                f"{table} is a table by its name: give the column that is the text as --source-column (and "
                "--target-column), or rename a plain text"
            )
        return PlainText(path)
    if suffix not in TABLES:
        raise UserError(
            f"{path} is not a table by its name, which ends in one of {', '.join(TABLES)}: rename it, or leave out "
            "--source-column and --target-column"
        )
    return TABLES[suffix](path, column)


def texts_of(options: PreprocessOptions, language: str | None) -> dict[str, Text]:
    """Every split's name and text of a language."""
    column = options.column(language)
    return {split: open_text(path, column) for split, path in options.texts(language).items()}
