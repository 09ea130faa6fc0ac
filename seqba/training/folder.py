"""Folder of a run's checkpoints: their names, and the rules by which they are kept."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from seqba.checkpoints.file import copy_checkpoint, write_checkpoint
from seqba.checkpoints.names import EPOCH_NAME, INTERVAL_NAME
from seqba.core import Group
from seqba.data.files import make_folder
from seqba.data.outputs import check_new_folder, missing_folders, remove_empty
from seqba.errors import UserError
from seqba.training.agreement import refuse_on_all
from seqba.training.options import CheckpointOptions
from seqba.training.progress import Progress

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

LAST = "checkpoint_last.pt"
BEST = "checkpoint_best.pt"


@contextmanager
def held_folder(options: CheckpointOptions, ranks: Group) -> Iterator[None]:
    """Context of a run that has its save-dir for itself: two would write their checkpoints and lines over each other's.

    The lock is on the folder, and ends with the process, however that ends. Where a file system has no such locks (NFS)
    nothing is held.

    Args:
        options: the folder, which is made; with `no_save` there is none.
        ranks: the processes of the run; the first one holds it, and all are told if it can't.

    Raises:
        UserError: if another run holds it, or it can't be made.
    """
    folder = Path(options.save_dir)
    new = missing_folders(folder)
    held, refusal = None, None
    if ranks.is_first and not options.no_save:
        try:
            make_folder(folder, f"--save-dir {folder}")
            held = _lock(folder)
        except UserError as error:
            refusal = str(error)
        except BlockingIOError:
            refusal = f"--save-dir {folder} is that of a run that is still going: choose another one, or wait for it"
        except OSError as error:
            refusal = f"--save-dir {folder} can't be written to: {error.strerror}"
    try:
        refuse_on_all(refusal, ranks)
        yield
    finally:
        if held is not None:
            _held.discard(held)
            os.close(held)
            remove_empty(new)


def _lock(folder: Path) -> int | None:
    """Descriptor of a folder whose lock it has; None where there are no locks.

    Raises:
        BlockingIOError: if another process has it.
    """
    if fcntl is None:
        return None
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise
    except OSError:
        os.close(descriptor)
        return None
    _held.add(descriptor)
    return descriptor


def _let_go() -> None:
    """Closes what a forked worker has got from its run, which it may outlive."""
    while _held:
        os.close(_held.pop())


_held: set[int] = set()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)


class CheckpointFolder:
    """Writes checkpoints under fairseq's names and removes those that the options don't keep.

    Args:
        options: the folder and the keep rules; with `no_save` nothing is written.
    """

    def __init__(self, options: CheckpointOptions) -> None:
        self.options = options
        self.path = Path(options.save_dir)

    def prepare(self) -> None:
        """Makes the folder and checks that it can be written to, before any long work.

        Raises:
            UserError: if it can't.
        """
        if self.options.no_save:
            return
        make_folder(self.path, f"--save-dir {self.options.save_dir}")
        check_new_folder(self.path, f"--save-dir {self.options.save_dir}")

    def save(self, state: Mapping[str, Any], names: list[str]) -> None:
        """Writes one state under several names, `checkpoint_last.pt` as the last of them.

        A run killed in between finds the older `checkpoint_last.pt`, and comes by and writes the others again.
        """
        if self.options.no_save:
            return
        first, *others = [*(name for name in names if name != LAST), LAST]
        write_checkpoint(self.path / first, state)
        for name in others:
            copy_checkpoint(self.path / first, self.path / name)

    def rank_best(self, progress: Progress, metric: str, value: float, *, maximize: bool) -> str | None:
        """Name under which a validated state is kept among the best; None if it isn't among them.

        Updates `progress.best_checkpoints`; `prune` removes what fell out.
        """
        kept = progress.best_checkpoints
        if self.options.keep_best_checkpoints < 1 or value != value:
            return None
        taken = {name for _, name in kept}
        digits = range(len(kept) + 1)
        name = next(n for d in digits if (n := f"checkpoint.best_{metric}_{value:.3f}{d}.pt") not in taken)
        ranked = sorted([*kept, (value, name)], key=lambda pair: -pair[0] if maximize else pair[0])
        progress.best_checkpoints = ranked[: self.options.keep_best_checkpoints]
        return name if (value, name) in progress.best_checkpoints else None

    def prune(self, progress: Progress, metric: str) -> None:
        """Removes epoch, interval and best checkpoints beyond what the options keep."""
        if self.options.no_save:
            return
        self._keep_last(EPOCH_NAME, self.options.keep_last_epochs)
        self._keep_last(INTERVAL_NAME, self.options.keep_interval_updates)
        if self.options.keep_best_checkpoints > 0:
            kept = {name for _, name in progress.best_checkpoints}
            for path in self.path.glob(f"checkpoint.best_{metric}_*.pt"):
                if path.name not in kept:
                    path.unlink()

    def _keep_last(self, pattern: re.Pattern[str], count: int) -> None:
        if count < 1:
            return
        numbered = [(int(match[1]), path) for path in self.path.iterdir() if (match := pattern.fullmatch(path.name))]
        for _, path in sorted(numbered, reverse=True)[count:]:
            path.unlink()
