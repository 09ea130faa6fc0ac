"""Unfinished files: each writer's own, beside the file that they become, and recognised once their writer is gone.

Their names are `.NAME.TOKEN.partial`, so that two processes that write one file at the same time don't meet. A
writer holds a lock on its own, which ends with the process however that ends: what has no lock was left behind.
"""

from __future__ import annotations

import os
import re
import secrets
import time
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

ABANDONED_S = 86400.0
"""Where a file system has no locks, what hasn't changed for so long is taken for left behind."""


def partial_name(path: Path) -> Path:
    """Name for an unfinished file that no other writer has, in the folder of `path`."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")


def create_partial(path: Path) -> tuple[Path, BinaryIO]:
    """Creates an unfinished file of this process for `path`, after removing those that killed ones have left.

    Its mode is that of any new file. The lock lasts until the file is closed: rename it before.

    Returns:
        Its path, and the file to write to.

    Raises:
        OSError: if it can't be created.
    """
    remove_abandoned(path)
    while True:
        partial = partial_name(path)
        file: BinaryIO | None = None
        try:
            file = partial.open("xb")
            # Another writer that looked in between has taken it for left behind, and holds it or has removed it.
            if try_lock(file.fileno()) is not False and partial.exists():
                return partial, file
            file.close()
        except FileExistsError:
            raise
        except BaseException:  # a signal
            if file is not None:
                file.close()
            partial.unlink(missing_ok=True)
            raise
        partial.unlink(missing_ok=True)


def remove_abandoned(path: Path) -> None:
    """Removes unfinished files for `path` whose writers are gone; those of another user, or in use, stay."""
    name = re.compile(rf"\.{re.escape(path.name)}\.[0-9a-f]{{8}}\.partial")
    with suppress(OSError):
        for entry in list(os.scandir(path.parent)):
            if name.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                with suppress(OSError):
                    _remove_if_abandoned(entry)


def _remove_if_abandoned(entry: os.DirEntry[str]) -> None:
    """Removes an unfinished file unless its writer has it; under the lock, so that none can take it meanwhile."""
    with open(entry, "r+b") as file:  # locks of NFS are for files that can be written to
        locked = try_lock(file.fileno())
        if locked:
            os.unlink(entry)
    if locked is None and time.time() - entry.stat().st_mtime > ABANDONED_S:
        os.unlink(entry)  # Windows, which has no locks, removes no file that is open


def try_lock(descriptor: int) -> bool | None:
    """Whether the lock of an open file could be had; None where the file system has none."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True
