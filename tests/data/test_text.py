"""Text in pieces: the same lines however it is cut and whoever works on it."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from seqba.data.text import Piece, count_lines, split_text
from seqba.data.workers import Workers
from seqba.errors import UserError

CONTENTS = [
    b"one\ntwo\nthree\n",
    b"one\ntwo\nno end",
    b"\n\n\n",
    b"windows\r\nlines\r\n",
    b"old mac\rlines\rhere",
    b"mixed\r\nof\rall\nkinds\r\r\n\n",
    "größe\u2028one line\x85still\x0cthe same\n😀\n".encode(),
    b"x" * 5000 + b"\n" + b"y" * 5000,
]


@pytest.mark.parametrize("content", CONTENTS)
@pytest.mark.parametrize("piece_bytes", [1, 7, 1000, 1 << 22])
def test_the_lines_are_those_of_pythons_text_mode(tmp_path: Path, content: bytes, piece_bytes: int) -> None:
    path = tmp_path / "text"
    path.write_bytes(content)
    expected = [line.removesuffix("\n") for line in io.TextIOWrapper(io.BytesIO(content), encoding="utf-8")]
    assert [line for piece in split_text(path, piece_bytes) for line in piece.lines()] == expected
    assert count_lines(path) == len(expected)


@pytest.mark.parametrize("content", CONTENTS)
def test_lines_are_counted_across_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    path = tmp_path / "text"
    path.write_bytes(content)
    expected = count_lines(path)
    monkeypatch.setattr("seqba.data.text.PIECE_BYTES", 1)
    assert count_lines(path) == expected


def test_an_empty_file_has_no_pieces(tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(b"")
    assert split_text(tmp_path / "text") == []
    assert count_lines(tmp_path / "text") == 0


def test_bytes_that_are_not_utf8_name_their_line_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "train.en"
    path.write_bytes(b"fine\n" * 100 + b"caf\xe9 bad\n" + b"fine\n" * 100)
    pieces = split_text(path, 64)
    assert len(pieces) > 10
    with pytest.raises(UserError, match=r"text .*train\.en, line 101: byte 0xe9 is not UTF-8; convert the file"):
        [piece.lines() for piece in pieces]


def length(piece: Piece) -> tuple[int, int]:
    return len(piece.lines()), os.getpid()


def fail(piece: Piece) -> None:
    raise UserError("bad text; mend it")


def die(piece: Piece) -> None:
    os._exit(1)


@pytest.mark.slow
def test_workers_give_the_same_results_in_the_same_order(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_text("".join(f"line {n}\n" for n in range(200)))
    pieces = split_text(path, 50)
    with Workers(1) as workers:
        alone = list(workers.map(length, pieces))
    assert {process for _, (_, process) in alone} == {os.getpid()}
    with Workers(2) as workers:
        shared = list(workers.map(length, pieces))
        with pytest.raises(UserError, match="bad text; mend it"):
            list(workers.map(fail, pieces))
        with pytest.raises(UserError, match=r"a worker process was killed.*use fewer --workers"):
            list(workers.map(die, pieces))
    assert [(piece, lines) for piece, (lines, _) in shared] == [(piece, lines) for piece, (lines, _) in alone]
    assert os.getpid() not in {process for _, (_, process) in shared}
