"""Unfinished files: each writer has its own, and what killed ones left goes with the next write."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from seqba.data import partial
from seqba.data.files import atomic_text, atomic_write

WRITER = """
import sys
from seqba.data.files import atomic_text
with atomic_text(sys.argv[1]) as file:
    file.write("of the other process")
    file.flush()
    print("begun", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "dict.txt"


@pytest.fixture
def writer(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that is in the middle of writing the file, and ends it at a line on its standard input."""
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        yield process
        process.kill()


def write(path: Path, text: str) -> None:
    with atomic_text(path) as file:
        file.write(text)


def names(path: Path) -> list[str]:
    return sorted(file.name for file in path.parent.iterdir())


def left_behind(path: Path, unique: str, *, age_s: float) -> Path:
    """An unfinished file that nobody writes."""
    left = path.with_name(f".{path.name}.{unique}.partial")
    left.write_text("half of")
    os.utime(left, (time.time() - age_s,) * 2)
    return left


def test_two_writers_at_once_leave_the_whole_of_the_later_one(path: Path) -> None:
    with atomic_write(path) as outer:
        outer.write(b"outer, ")
        with atomic_write(path) as inner:
            inner.write(b"inner")
        assert path.read_bytes() == b"inner"
        outer.write(b"and later")
    assert path.read_bytes() == b"outer, and later"
    assert names(path) == ["dict.txt"]


def test_a_writer_that_fails_takes_nothing_of_another_ones(path: Path) -> None:
    def fail() -> None:
        with atomic_write(path) as file:
            file.write(b"inner")
            raise KeyboardInterrupt

    with atomic_write(path) as outer:
        with pytest.raises(KeyboardInterrupt):
            fail()
        outer.write(b"outer")
    assert path.read_bytes() == b"outer"
    assert names(path) == ["dict.txt"]


def test_a_file_that_another_process_writes_is_left_to_it(path: Path, writer: subprocess.Popen[str]) -> None:
    write(path, "of this one")
    assert len(names(path)) == 2
    writer.communicate("\n")
    assert writer.returncode == 0
    assert names(path) == ["dict.txt"]
    assert path.read_text() == "of the other process"


def test_what_a_killed_process_left_goes_with_the_next_write(path: Path, writer: subprocess.Popen[str]) -> None:
    writer.kill()
    writer.wait()
    (left,) = names(path)
    assert left.startswith(".dict.txt.")
    write(path, "new")
    assert names(path) == ["dict.txt"]


def test_files_of_other_names_are_left_alone(path: Path) -> None:
    others = {
        ".dict.txt.partial",
        ".dict.txt.notes.partial",
        ".dict.txt.0123abcd.partial.gz",
        ".train.0123abcd.partial",
    }
    for name in others:
        path.with_name(name).touch()
    path.with_name(".dict.txt.89abcdef.partial").mkdir()
    write(path, "new")
    assert set(names(path)) == {"dict.txt", ".dict.txt.89abcdef.partial", *others}


@pytest.mark.skipif(partial.fcntl is None, reason="this system has no locks")
def test_without_locks_only_what_is_old_goes(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an open file as it goes, which Windows would not remove."""
    asked: list[int] = []
    unlink = os.unlink

    def no_locks(descriptor: int, _: int) -> None:
        asked.append(descriptor)
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    def closed_first(name: Any) -> None:
        with pytest.raises(OSError, match="descriptor"):
            os.fstat(asked[-1])
        unlink(name)

    monkeypatch.setattr(partial.fcntl, "flock", no_locks)
    monkeypatch.setattr(os, "unlink", closed_first)
    young = left_behind(path, "0123abcd", age_s=0.9 * partial.ABANDONED_S)
    left_behind(path, "89abcdef", age_s=1.1 * partial.ABANDONED_S)
    write(path, "new")
    assert names(path) == [young.name, "dict.txt"]


def test_a_writer_whose_file_was_taken_for_left_behind_begins_another(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, begun = partial.try_lock, []

    def meanwhile(descriptor: int) -> bool | None:
        begun.append(names(path))
        if len(begun) == 1:
            for name in begun[0]:
                path.with_name(name).unlink()
        return len(begun) != 2 and lock(descriptor)

    monkeypatch.setattr(partial, "try_lock", meanwhile)
    write(path, "new")
    assert len(begun) == 3
    assert names(path) == ["dict.txt"]
    assert path.read_text() == "new"


def test_a_signal_as_a_file_begins_leaves_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(descriptor: int) -> bool:
        raise SystemExit(143)

    monkeypatch.setattr(partial, "try_lock", interrupted)
    with pytest.raises(SystemExit), atomic_write(path):
        pass
    assert not [file for file in path.parent.iterdir() if file != path]


def test_modes_are_those_of_any_new_file(path: Path) -> None:
    before = os.umask(0o027)
    try:
        write(path, "new")
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o640
