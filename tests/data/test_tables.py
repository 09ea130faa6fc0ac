"""Columns of tables: the lines that a file of lines would have, and one line for everything that is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seqba.data.parquet import ParquetColumn
from seqba.data.row_files import JsonColumn, TsvColumn
from seqba.data.tables import open_text
from seqba.data.text import PlainText, Text
from seqba.errors import UserError

ENGLISH = ["a b a", "", "  größe\u2028 \u00a0 b ", 'the "dog"', "😀 c"]
GERMAN = ["x", "y x", "", "z", "\\n is no line end"]


def write_jsonl(path: Path, english: Sequence[Any], german: Sequence[Any]) -> Path:
    rows = ({"id": n, "translation": {"en": a, "de": b}} for n, (a, b) in enumerate(zip(english, german, strict=True)))
    path.write_text("".join(json.dumps(row, ensure_ascii=row["id"] % 2 == 0) + "\n" for row in rows), encoding="utf-8")
    return path


def write_tsv(path: Path, english: Sequence[str], german: Sequence[str]) -> Path:
    rows = [("en", "note", "de"), *((a, "-", b) for a, b in zip(english, german, strict=True))]
    path.write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_parquet(path: Path, english: Sequence[Any], german: Sequence[Any], **settings: Any) -> Path:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = [{"en": a, "de": b} for a, b in zip(english, german, strict=True)]
    table = pyarrow.table({"id": list(range(len(rows))), "translation": rows, "en": pyarrow.array(english)})
    parquet.write_table(table, path, **{"row_group_size": 2, "write_page_checksum": True, **settings})
    return path


WRITERS: dict[str, tuple[Callable[..., Path], str, str]] = {
    "t.jsonl": (write_jsonl, "translation.en", "translation.de"),
    "t.tsv": (write_tsv, "en", "de"),
    "t.parquet": (write_parquet, "translation.en", "translation.de"),
}


def lines_of(text: Text) -> list[str]:
    return [line for piece in text.pieces() for line in piece.lines()]


def complaint(text: Callable[[], Text]) -> str:
    with pytest.raises(UserError) as raised:
        text().count_lines()
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize("piece_bytes", [1, 30, 1 << 22])
@pytest.mark.parametrize("name", WRITERS)
def test_columns_are_the_lines_however_a_file_is_cut(
    name: str, piece_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seqba.data.text.split_text.__defaults__", (piece_bytes,))
    monkeypatch.setattr("seqba.data.parquet.PIECE_BYTES", piece_bytes)
    write, *columns = WRITERS[name]
    path = write(tmp_path / name, ENGLISH, GERMAN)
    for column, lines in zip(columns, (ENGLISH, GERMAN), strict=True):
        text = open_text(str(path), column)
        assert lines_of(text) == lines
        assert text.count_lines() == len(lines)
        assert str(text) == f"{path} ({column})"
        assert (len(text.pieces()) == 1) == (piece_bytes == 1 << 22)


@pytest.mark.parametrize("name", ["t.jsonl", "t.parquet"])
def test_line_ends_inside_a_value_are_spaces(name: str, tmp_path: Path) -> None:
    write, column, _ = WRITERS[name]
    path = write(tmp_path / name, ["a\nb", "a\r\nb\rc", "a\tb\n"], ["", "", ""])
    assert lines_of(open_text(str(path), column)) == ["a b", "a b c", "a\tb "]


def test_a_key_with_a_dot_is_taken_whole(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text('{"a.b": "whole", "a": {"b": "inner"}}\n{"a": {"b": "inner"}}\n{"a": {"b.c": 1, "b": "last"}}\n')
    assert lines_of(JsonColumn(str(path), "a.b")) == ["whole", "inner", "last"]


def test_columns_of_a_tsv_by_number(tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_bytes("\ufeffa\tb c\r\nd\t\r\n".encode())
    assert lines_of(TsvColumn(str(tmp_path / "t.tsv"), "1")) == ["a", "d"]
    assert lines_of(TsvColumn(str(tmp_path / "t.tsv"), "2")) == ["b c", ""]
    assert "has 2 columns, and none of number 3" in complaint(lambda: TsvColumn(str(tmp_path / "t.tsv"), "3"))
    assert "has 2 columns, and none of number 0" in complaint(lambda: TsvColumn(str(tmp_path / "t.tsv"), "0"))


def test_files_of_lines_and_tables_are_told_apart_by_their_names(tmp_path: Path) -> None:
    (tmp_path / "corpus.en").write_text("a\n")
    assert open_text(str(tmp_path / "corpus.en"), None) == PlainText(str(tmp_path / "corpus.en"))
    assert "corpus.en is not a table by its name" in complaint(lambda: open_text(str(tmp_path / "corpus.en"), "en"))
    path = write_jsonl(tmp_path / "corpus.jsonl", ENGLISH, GERMAN)
    for given in (path, f"{path}.en"):
        assert "corpus.jsonl is a table by its name: give the column" in complaint(lambda g=given: open_text(g, None))
    Path(f"{path}.en").write_text("a\n")  # whose prefix happens to be like a table
    assert open_text(f"{path}.en", None).count_lines() == 1


GOOD_ROW = b'{"en": "a", "de": "b"}\n'
BAD_JSON: dict[str, tuple[bytes, str]] = {
    "broken": (b'{"en": "a"\n', "line 3 is not JSON (expecting ',' delimiter): each line must be an object like"),
    "blank": (b"\n", "line 3 is not JSON (it is empty)"),
    "a list": (b'["a"]\n', "line 3 is a list, not an object of JSON"),
    "a number": (b"17\n", "line 3 is a number, not an object"),
    "absent": (b'{"de": "b", "x": {"fr": "c"}}\n', "line 3 has no 'en'; it has: de, x.fr"),
    "nothing": (b"{}\n", "line 3 has no 'en'; it has: nothing"),
    "null": (b'{"en": null}\n', "line 3 has null under 'en', not a text"),
    "another type": (b'{"en": ["a"]}\n', "line 3 has a list under 'en', not a text"),
    "half a character": (b'{"en": "a\\ud83d"}\n', "line 3 has a text under 'en' with half of a character"),
    "deep": (b"[" * 100_000 + b"\n", "line 3 is not JSON (no number, or too deep)"),
    "long number": (b'{"x": ' + b"9" * 5000 + b"}\n", "line 3 is not JSON (no number, or too deep)"),
    "latin-1": (b'{"en": "caf\xe9"}\n', "line 3: byte 0xe9 is not UTF-8"),
    "cut": (b'{"en": "a', "line 3 is not JSON (unterminated string starting at)"),
}


@pytest.mark.parametrize("piece_bytes", [1, 1 << 22])
@pytest.mark.parametrize("case", BAD_JSON)
def test_bad_rows_of_json_name_their_line(
    case: str, piece_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seqba.data.text.split_text.__defaults__", (piece_bytes,))
    row, message = BAD_JSON[case]
    (tmp_path / "t.jsonl").write_bytes(GOOD_ROW * 2 + row)
    assert message in complaint(lambda: JsonColumn(str(tmp_path / "t.jsonl"), "en"))


BAD_TSV: dict[str, tuple[bytes, str]] = {
    "absent": (b"en\tde\na\tb\n", "has no column 'fr'; its first line names: en, de"),
    "twice": (b"fr\tfr\na\tb\n", "has several columns 'fr'"),
    "fewer fields": (b"fr\tde\na\tb\na\n", "line 3 has 1 fields and the first line 2"),
    "a tab inside": (b"fr\tde\na\tb\na\tb\tc\n", "line 3 has 3 fields and the first line 2"),
    "blank": (b"fr\tde\n\n", "line 2 has 1 fields and the first line 2"),
    "carriage return": (b"fr\tde\na\tb\na\rb\tc\n", "line 3 has 1 fields"),
    "utf-16": ("fr\tde\na\tb\n".encode("utf-16"), "is UTF-16 text, not UTF-8 text"),
}


@pytest.mark.parametrize("case", BAD_TSV)
def test_bad_tsv(case: str, tmp_path: Path) -> None:
    content, message = BAD_TSV[case]
    (tmp_path / "t.tsv").write_bytes(content)
    assert message in complaint(lambda: TsvColumn(str(tmp_path / "t.tsv"), "fr"))


@pytest.mark.parametrize("kind", [JsonColumn, TsvColumn])
def test_an_empty_file_has_no_rows_and_an_absent_one_is_told(kind: Callable[..., Text], tmp_path: Path) -> None:
    (tmp_path / "t").write_bytes(b"")
    assert kind(str(tmp_path / "t"), "en").count_lines() == 0
    assert "text absent does not exist" in complaint(lambda: kind("absent", "en"))


def test_bad_parquet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seqba.data.parquet.PIECE_BYTES", 1)
    path = write_parquet(tmp_path / "t.parquet", ["a", "b", None, "d"], ["x", "y", "z", None])
    for column, message in {
        "fr": "has no column 'fr'; it has: id, translation.en, translation.de, en",
        "translation": "has no column 'translation'",
        "id": "has int64 in its column 'id', not text (string)",
        "en": "row 3 has null under 'en', not a text",
        "translation.de": "row 4 has null under 'translation.de'",
    }.items():
        assert message in complaint(lambda c=column: ParquetColumn(str(path), c))
    content = path.read_bytes()
    (tmp_path / "cut.parquet").write_bytes(content[: len(content) // 2])
    assert "cut.parquet is damaged, or no Parquet file" in complaint(
        lambda: ParquetColumn(str(tmp_path / "cut.parquet"), "en")
    )
    (tmp_path / "text.parquet").write_text("a\n" * 99)
    assert "text.parquet is damaged, or no" in complaint(lambda: ParquetColumn(str(tmp_path / "text.parquet"), "en"))
    assert "text absent.parquet does not exist" in complaint(lambda: ParquetColumn("absent.parquet", "en"))
    assert "is a folder, not a file" in complaint(lambda: ParquetColumn(str(tmp_path), "en"))
    empty = write_parquet(tmp_path / "empty.parquet", [""], [""])
    assert ParquetColumn(str(empty), "en").count_lines() == 1


def test_texts_of_every_kind_that_arrow_has(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    kinds = {"plain": pyarrow.string(), "large": pyarrow.large_string()}
    columns = {name: pyarrow.array(ENGLISH, kind) for name, kind in kinds.items()}
    columns["coded"] = columns["plain"].dictionary_encode()
    parquet.write_table(pyarrow.table(columns), tmp_path / "t.parquet", row_group_size=2)
    for name in columns:
        assert lines_of(ParquetColumn(str(tmp_path / "t.parquet"), name)) == ENGLISH


@pytest.mark.parametrize("name", WRITERS)
def test_damaged_files_give_lines_or_one_complaint(name: str, tmp_path: Path) -> None:
    write, column, _ = WRITERS[name]
    content = write(tmp_path / name, ENGLISH, GERMAN).read_bytes()
    chance = np.random.default_rng(5)
    for _ in range(150):
        damaged = bytearray(content)
        for place in chance.integers(len(content), size=chance.integers(1, 4)):
            damaged[place] = chance.integers(256)
        cut = int(chance.integers(len(content))) if chance.random() < 0.3 else len(content)
        (tmp_path / name).write_bytes(damaged[:cut])
        with suppress(UserError):  # whose message is one line, whatever it is made of
            assert all("\n" not in line for line in lines_of(open_text(str(tmp_path / name), column)))
