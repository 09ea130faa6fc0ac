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

PREFIX = ".preprocess-"


@contextmanager
def staged(destdir: str) -> Iterator[Path]:
    """Yields a folder inside `destdir` whose files move there if the block succeeds and vanish if it does not.

    What killed processes left of theirs is removed before.

    Raises:
        UserError: if `destdir` can't be written to.
    """
    destination = Path(destdir)
    created = missing_folders(destination)
    make_folder(destdir, f"--destdir {destdir}")
    _remove_abandoned(destination)
    try:
        new = Path(tempfile.mkdtemp(prefix=".new", dir=destination))
    except OSError as error:
        raise UserError(f"--destdir {destdir} can't be written to: {error.strerror}") from None
    stage = new.with_name(new.name.replace(".new", PREFIX, 1))
    try:
        with _held(new):
            new.rename(stage)  # under its lock: no other process takes it for left behind
            yield stage
            # Dictionaries last: once they are there, a second run refuses to start.
            for path in sorted(stage.iterdir(), key=lambda path: path.name.startswith("dict.")):
                path.replace(destination / path.name)
            created = []
    finally:
        shutil.rmtree(stage, ignore_errors=True)
        remove_empty(created)


@contextmanager
def _held(folder: Path) -> Iterator[bool]:
    """Holds the lock of a folder, and yields whether it could be had; False also where there are no locks."""
    if os.name == "nt":
        yield False
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        yield try_lock(descriptor) is True
    finally:
        os.close(descriptor)


def _remove_abandoned(destination: Path) -> None:
    """Removes the folders of processes that are gone; where there are no locks none is known to be."""
    for folder in destination.glob(f"{PREFIX}*"):
        with suppress(OSError), _held(folder) as is_abandoned:
            if is_abandoned:
                shutil.rmtree(folder, ignore_errors=True)
