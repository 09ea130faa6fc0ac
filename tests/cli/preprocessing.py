"""Texts, and calls of seqba-preprocess on them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from seqba.cli.command import run
from seqba.cli.preprocess import main

ENGLISH = "a b a\n\n  a\tc \u00a0 b \n"
GERMAN = "x\ny x\nz x y\n"


def put(folder: Path, name: str, english: str | bytes = ENGLISH, german: str | bytes = GERMAN) -> str:
    """Writes both sides of a text; returns their prefix."""
    for language, text in (("en", english), ("de", german)):
        content = text.encode() if isinstance(text, str) else text
        (folder / f"{name}.{language}").write_bytes(content)
    return str(folder / name)


def preprocess(destination: Path, *arguments: object) -> Path:
    """Makes a data folder."""
    assert main(["-s", "en", "-t", "de", "--destdir", str(destination), *map(str, arguments)]) == 0
    return destination


def tree(folder: Path) -> dict[Path, bytes | None] | None:
    """Everything in a folder; None where there is none."""
    if not folder.exists():
        return None
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@contextmanager
def untouched(folder: Path) -> Iterator[None]:
    """Checks that a block changes nothing in a folder, nor makes it."""
    before = tree(folder)
    yield
    assert tree(folder) == before


def complaint(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line that a failing command prints."""
    capsys.readouterr()
    assert run(main, [str(argument) for argument in arguments]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    return lines[0]
