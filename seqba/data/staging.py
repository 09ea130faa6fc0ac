"""Folders whose files come to where they belong together, once all are made."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from seqba.data.files import make_folder
from seqba.data.outputs import missing_folders, remove_empty
from seqba.data.partial import try_lock
from seqba.errors import UserError

PREFIX = ".unfinished-"


@contextmanager
def staged(folder: str | Path, named: str, *, last: str) -> Iterator[Path]:
    """Yields a folder inside another whose files move there if the block succeeds and vanish if it does not.

    What killed processes left of theirs is removed before.

    Args:
        folder: where the files shall be; is made if it isn't there.
        named: the option and its value, for the message.
        last: what the names of those files begin with that say that all are there; they move last.

    Raises:
        UserError: if the folder can't be written to.
        OSError: from the file system, carrying the name that a file would have got.
    """
    destination = Path(folder)
    created = missing_folders(destination)
    make_folder(folder, named)
    try:
        _remove_abandoned(destination)
        with _new_stage(destination, named) as stage:
            try:
                yield stage
                for path in sorted(stage.iterdir(), key=lambda path: path.name.startswith(last)):
                    path.replace(destination / path.name)
            except OSError as error:
                if error.filename is not None and Path(os.fsdecode(error.filename)).parent == stage:
                    error.filename = str(destination / Path(os.fsdecode(error.filename)).name)
                raise
            created = []
    finally:
        remove_empty(created)


@contextmanager
def _new_stage(destination: Path, named: str) -> Iterator[Path]:
    """Yields a new folder under its lock, and removes it afterwards."""
    while True:
        try:
            stage = Path(tempfile.mkdtemp(prefix=PREFIX, dir=destination))
        except OSError as error:
            raise UserError(f"{named} can't be written to: {error.strerror}") from None
        try:
            with _held(stage) as held:
                # Another process that looked in between has taken it for left behind, and holds it or has removed it.
                if held is not False and stage.exists():
                    yield stage
                    return
        finally:
            shutil.rmtree(stage, ignore_errors=True)


@contextmanager
def _held(folder: Path) -> Iterator[bool | None]:
    """Holds the lock of a folder, and yields whether it could be had; None where there are no locks."""
    if os.name == "nt":
        yield None
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        yield False  # another process has removed it
        return
    try:
        yield try_lock(descriptor)
    finally:
        os.close(descriptor)


def _remove_abandoned(destination: Path) -> None:
    """Removes the folders of processes that are gone; where there are no locks none is known to be."""
    for folder in destination.glob(f"{PREFIX}*"):
        with suppress(OSError), _held(folder) as is_abandoned:
            if is_abandoned is True:
                shutil.rmtree(folder, ignore_errors=True)
