"""Files are whole or absent, and reading errors say what to do."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from seqba.data.files import atomic_write, make_folder, open_file, read_lines, write_json
from seqba.data.outputs import check_file
from seqba.errors import UserError


def test_a_file_appears_only_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    with atomic_write(path) as file:
        file.write(b"all of it")
        assert not path.exists()
    assert path.read_bytes() == b"all of it"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    path.write_bytes(b"old")

    def write() -> None:
        with atomic_write(path) as file:
            file.write(b"half of the n")
            raise RuntimeError("midway")

    with pytest.raises(RuntimeError, match="midway"):
        write()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    path = tmp_path / "train.bin"
    with pytest.raises(OSError, match="No space left") as caught, atomic_write(path) as file:
        file.write(b"x")
    assert caught.value.filename == str(path)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_names_the_file_and_not_its_partial_name(tmp_path: Path) -> None:
    path = tmp_path / "absent" / "train.bin"
    with pytest.raises(FileNotFoundError) as caught, atomic_write(path):
        pass
    assert caught.value.filename == str(path)


def test_reading_what_is_not_there_or_not_a_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"dictionary .*dict\.txt does not exist; look elsewhere"):
        open_file(tmp_path / "dict.txt", "dictionary", "look elsewhere")
    with pytest.raises(UserError, match=r"dictionary .* is a folder, not a file"):
        open_file(tmp_path, "dictionary")


def test_text_that_is_not_utf8_names_line_and_byte(tmp_path: Path) -> None:
    path = tmp_path / "dict.txt"
    path.write_bytes(b"one 1\ntwo 2\nM\xfcller 3\n")
    with pytest.raises(UserError, match=r"dict\.txt, line 3: byte 0xfc is not UTF-8; convert"):
        read_lines(path, "dictionary")


def test_a_device_or_folder_is_not_replaced(tmp_path: Path) -> None:
    for path in (tmp_path, Path("/dev/null")):
        with pytest.raises(UserError, match="is not a file that could be written"), atomic_write(path):
            pass
    assert Path("/dev/null").is_char_device()


def test_messages_name_a_path_as_it_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    with pytest.raises(FileNotFoundError) as caught, atomic_write("./absent//train.bin"):
        pass
    assert caught.value.filename == "./absent//train.bin"
    with pytest.raises(UserError, match=r"^\./in/ is not a file that could be written"), atomic_write("./in/"):
        pass
    with pytest.raises(UserError, match=r"^text \./in// is a folder"):
        read_lines("./in//", "text")


def test_json_holds_names_that_are_not_utf8_and_no_nan(tmp_path: Path) -> None:
    content = {"path": "caf\udce9", "text": "größe", "sizes": [1, 2.5]}
    write_json(tmp_path / "a.json", content)
    written = (tmp_path / "a.json").read_bytes()
    assert json.loads(written) == content
    assert written.isascii()
    assert written.endswith(b"\n}\n")
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert (tmp_path / "a.json").read_bytes() == written


def test_a_folder_is_made_or_told_why_not(tmp_path: Path) -> None:
    make_folder(tmp_path / "a" / "b", "--save-dir a/b")
    make_folder(tmp_path / "a" / "b", "--save-dir a/b")
    assert (tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("/nowhere/at/all")
    for name, reason in {
        "file": "it is no folder",
        "file/below": "Not a directory",
        "link": "it is a link to /nowhere/at/all, which doesn't exist",
    }.items():
        with pytest.raises(UserError, match=f"^--out {name} can't be written to: {reason}$"):
            make_folder(tmp_path / name, f"--out {name}")


def test_a_path_that_is_empty_is_not_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"^--destdir is empty \(a variable that isn't set\?\): name a folder"):
        make_folder("", "--destdir ")
    with pytest.raises(UserError, match=r"^--output is empty \(a variable that isn't set\?\): name a file"):
        check_file("", "--output ")
    make_folder(".", "--destdir .")
    check_file("a", "--output a")
