"""What can't be written is told before long work, and looking leaves nothing."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from seqba.data import outputs
from seqba.data.outputs import check_appended_file, check_file, check_new_folder, missing_folders
from seqba.errors import UserError


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a file, a folder and a link to nowhere in it."""
    (tmp_path / "file").write_text("kept")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("/nowhere/at/all")
    return tmp_path


def contents(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


@pytest.mark.parametrize(
    ("check", "name", "reason"),
    [
        (check_file, "folder", "can't be written: it is a folder, not a file"),
        (check_file, "absent/file", "can't be written: there is no folder .*absent"),
        (check_file, "file/below", "can't be written: there is no folder .*file"),
        (check_file, "n" * 250, "can't be written: File name too long"),
        (check_appended_file, "folder", "can't be written to: it is a folder, not a file"),
        (check_appended_file, "file/below", "can't be written to: it is no folder"),
        (check_appended_file, "file/a/b", "can't be written to: .*file is no folder"),
        (check_new_folder, "file", "can't be written to: it is no folder"),
        (check_new_folder, "file/a/b", "can't be written to: .*file is no folder"),
        (check_new_folder, "link", "can't be written to: it is a link to /nowhere/at/all, which doesn't exist"),
        (check_new_folder, "link/a", "can't be written to: .*link is a link to /nowhere/at/all, which doesn't exist"),
    ],
)
def test_what_cannot_be_written_is_told(check: type, name: str, reason: str, place: Path) -> None:
    before = contents(place)
    with pytest.raises(UserError, match=f"^--out x {reason}"):
        check(place / name, "--out x")
    assert contents(place) == before


@pytest.mark.parametrize(
    ("check", "name"),
    [
        (check_file, "file"),
        (check_file, "link"),
        (check_file, "folder/new"),
        (check_appended_file, "file"),
        (check_appended_file, "a/b/new"),
        (check_new_folder, "folder"),
        (check_new_folder, "folder/a/b"),
    ],
)
def test_looking_leaves_nothing(check: type, name: str, place: Path) -> None:
    before = contents(place)
    check(place / name, "--out x")
    assert contents(place) == before
    assert (place / "file").read_text() == "kept"


def test_names_are_taken_from_the_folder_of_the_process(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    for check, name in ((check_file, "new"), (check_appended_file, "a/new"), (check_new_folder, "a/b")):
        check(name, "--out x")
    for check in (check_file, check_appended_file, check_new_folder):
        with pytest.raises(UserError, match=r"^--out is empty \(a variable that isn't set\?\): name a"):
            check("", "--out ")


def test_a_file_system_that_takes_nothing_is_told(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(outputs, "create_partial", read_only)
    monkeypatch.setattr("tempfile.mkstemp", read_only)
    for check in (check_file, check_appended_file, check_new_folder):
        with pytest.raises(UserError, match=r"can't be written( to)?: Read-only file system"):
            check(place / "new", "--out x")


def test_missing_folders_are_those_that_would_be_made(place: Path) -> None:
    assert missing_folders(place / "folder") == []
    assert missing_folders(place / "a" / "b") == [place / "a" / "b", place / "a"]
