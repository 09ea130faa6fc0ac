"""Files that are either whole or absent, and reading errors that say what to do."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from seqba.data.lines import decode_text, split_lines
from seqba.data.names import ESCAPED
from seqba.data.outputs import refuse_empty
from seqba.data.partial import create_partial
from seqba.errors import UserError


def make_folder(path: str | Path, named: str) -> None:
    """Makes a folder, and those above it, unless it is there.

    Args:
        path: the folder.
        named: the option and its value, for the message.

    Raises:
        UserError: if it can't be made, or has no name.
    """
    refuse_empty(path, named, "a folder, . for this one")
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        is_dangling = os.path.islink(path) and not os.path.exists(path)
        reason = f"it is a link to {os.readlink(path)}, which doesn't exist" if is_dangling else "it is no folder"
        raise UserError(f"{named} can't be written to: {reason}") from None
    except OSError as error:
        raise UserError(f"{named} can't be written to: {error.strerror}") from None


@contextmanager
def atomic_write(path: str | Path) -> Iterator[BinaryIO]:
    """Opens a file that appears under its name only once it is complete and on the disk.

    The bytes go to a file of this writer's own in the same folder (`seqba.data.partial`); leaving the block flushes and
    syncs them and renames the file over `path`. If the block raises, the partial file is removed and whatever stood at
    `path` is untouched. What a killed process left behind is removed by the next write of the same name. Of two writers
    at the same time, each leaves the whole of its own, and the later rename stays.

    Args:
        path: where the file shall be; its folder must exist.

    Yields:
        The binary file to write to.

    Raises:
        OSError: from the file system (a full disk, no permission), carrying `path` as its file name.
    """
    given, path = path, Path(path)
    if path.exists() and not path.is_file():
        # Renaming onto a folder fails late, and onto a device replaces it.
        raise UserError(f"{given} is not a file that could be written: give another path")
    try:
        partial, file = create_partial(path)
    except OSError as error:
        error.filename = str(given)  # it names the partial one, and the user knows only `path`
        raise
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            if os.name == "nt":
                file.close()  # no open file is renamed there
            partial.replace(path)  # before it is closed, and its lock let go
        _sync_folder(path.parent)
    except BaseException as error:
        partial.unlink(missing_ok=True)
        if isinstance(error, OSError) and (error.filename is None or Path(str(error.filename)) == partial):
            error.filename = str(given)  # a failed write() names no file
        raise


@contextmanager
def naming_file(path: str | Path) -> Iterator[None]:
    """Inside, errors of the file system that name no file, as those of a failed write, get this one's name."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


@contextmanager
def atomic_text(path: str | Path) -> Iterator[TextIO]:
    """As `atomic_write`, for UTF-8 text with plain newlines on every system; names that aren't UTF-8 are escaped."""
    with atomic_write(path) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", errors=ESCAPED, newline="\n")
        yield text
        text.flush()
        text.detach()  # the binary file is synced and closed by atomic_write


def write_json(path: str | Path, content: Mapping[str, Any]) -> None:
    r"""Writes an object of JSON as `atomic_write` writes, indented, in ASCII: whatever a name is made of has an escape.

    Raises:
        ValueError: for a number that isn't finite, which JSON doesn't have.
    """
    with atomic_text(path) as file:
        json.dump(content, file, indent=2, allow_nan=False)
        file.write("\n")


def open_file(path: str | Path, what: str, remedy: str = "check the path") -> BinaryIO:
    """Opens a file for reading in binary.

    Args:
        path: the file.
        what: what the file is to the user, to begin the message with ("dictionary", "corpus index").
        remedy: what to do when the file is missing.

    Raises:
        UserError: if the file is missing, is a folder or may not be read.
    """
    try:
        return open(path, "rb")
    except FileNotFoundError:
        raise UserError(f"{what} {path} does not exist; {remedy}") from None
    except IsADirectoryError:
        raise UserError(f"{what} {path} is a folder, not a file; {remedy}") from None
    except OSError as error:
        raise UserError(f"{what} {path} cannot be read: {error.strerror}; check its permissions") from None


def read_lines(path: str | Path, what: str, remedy: str = "check the path") -> list[str]:
    """The lines of a whole UTF-8 file, without their ends (see `seqba.data.lines`).

    Raises:
        UserError: if the file is missing, unreadable or not text; the message names the first bad line.
    """
    with open_file(path, what, remedy) as file:
        return split_lines(decode_text(file.read(), f"{what} {path}"))


def _sync_folder(folder: Path) -> None:
    """Makes a rename outlast a power cut; file systems that cannot sync a folder have nothing to sync."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
