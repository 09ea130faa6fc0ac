"""Output paths of commands, looked at before long work: what can't be written is told at once, and nothing is made."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from seqba.data.partial import create_partial
from seqba.errors import UserError


def check_file(path: str | Path, named: str) -> None:
    """Refuses a file that `atomic_write` couldn't write.

    Args:
        path: where the file shall be.
        named: the option and its value, for the message.

    Raises:
        UserError: if there is no such folder, no permission to write into it, or something else of that name.
    """
    refuse_empty(path, named, "a file")
    path, folder = Path(path), Path(path).parent
    if path.exists() and not path.is_file():
        raise UserError(f"{named} can't be written: it is {'a folder' if path.is_dir() else 'a device'}, not a file")
    if not folder.absolute().is_dir():
        raise UserError(f"{named} can't be written: there is no folder {folder}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"{named} can't be written: no permission to write into {folder}")
    try:
        partial, file = create_partial(path)
        try:
            file.close()
        finally:
            partial.unlink()
    except OSError as error:
        raise UserError(f"{named} can't be written: {error.strerror}") from None


def check_appended_file(path: str | Path, named: str) -> None:
    """Refuses a file that couldn't be appended to; those above it that aren't there are folders to be made.

    Raises:
        UserError: with the reason.
    """
    refuse_empty(path, named, "a file")
    path = Path(path)
    if not path.exists():
        check_new_folder(path.parent, named)
    elif path.is_dir() or not os.access(path, os.W_OK):
        reason = "it is a folder, not a file" if path.is_dir() else "no permission"
        raise UserError(f"{named} can't be written to: {reason}")


def check_new_folder(path: str | Path, named: str) -> None:
    """Refuses a folder that couldn't be made, or that takes no files.

    Raises:
        UserError: with the reason.
    """
    refuse_empty(path, named, "a folder, . for this one")
    path = Path(path)
    there = next((place for place in (path, *path.absolute().parents) if os.path.lexists(place)), path)
    if not there.is_dir():
        if there.is_symlink() and not there.exists():
            reason = f"{_it(there, path)} a link to {os.readlink(there)}, which doesn't exist"
        else:
            reason = f"{_it(there, path)} no folder"
        raise UserError(f"{named} can't be written to: {reason}")
    try:
        descriptor, probe = tempfile.mkstemp(prefix=".writable-", dir=there)
        try:
            os.close(descriptor)
        finally:
            os.unlink(probe)
    except OSError as error:
        raise UserError(f"{named} can't be written to: {error.strerror}") from None


def refuse_empty(path: str | Path, named: str, wanted: str) -> None:
    """Refuses a path without a name, which would stand for the current folder.

    Raises:
        UserError: that says what to name.
    """
    if path == "":
        raise UserError(f"{named.rstrip()} is empty (a variable that isn't set?): name {wanted}")


def refuse_overwriting(output: str | Path, inputs: Iterable[str | Path]) -> None:
    """Refuses an `--output` that is one of the files it is made from: what else is in that file would be lost.

    Raises:
        UserError: naming it.
    """
    for path in inputs:
        if os.path.exists(output) and os.path.exists(path) and os.path.samefile(output, path):
            raise UserError(f"--output {output} would take the place of {path}, which is read: give another path")


def missing_folders(path: str | Path) -> list[Path]:
    """Folders that making `path` would make, the innermost first: for `remove_empty`, where nothing came of it."""
    path = Path(path).absolute()
    return [folder for folder in (path, *path.parents) if not folder.exists()]


def remove_empty(folders: Iterable[Path]) -> None:
    """Removes folders, the innermost first, as far as they are empty."""
    with suppress(OSError):
        for folder in folders:
            folder.rmdir()


def _it(there: Path, path: Path) -> str:
    return "it is" if there == path else f"{there} is"
