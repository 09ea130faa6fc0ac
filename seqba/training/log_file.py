"""JSON lines that a run keeps in its save-dir: each update's once, however often the run was killed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, BinaryIO

from seqba.core import Group
from seqba.data.files import naming_file
from seqba.errors import UserError
from seqba.training.options import CheckpointOptions
from seqba.training.progress import Progress

RUN_LOG = "log.jsonl"


class RunLog:
    """Log of a run, to which lines are appended after those that its checkpoint knows of.

    Lines of later updates are cut off: they are made again. So is what a process left that was killed in the middle of
    a line. Nothing is written anew, so that a crash at any moment leaves whole lines, and at most a part of a last one.

    Args:
        path: the file; its folder must exist.
        update: the last update that the run goes on from; 0 for a new run.
        validated: whether the validations after that update are done; their lines are cut off otherwise.

    Raises:
        UserError: if the file can't be written to, or is no log of a run.
    """

    def __init__(self, path: Path, update: int = 0, *, validated: bool = True) -> None:
        self.path = path
        self._file: BinaryIO | None = None
        try:
            with open(path, "a+b") as file:
                file.truncate(_kept_size(file, path, update, validated=validated))
        except OSError as error:
            raise UserError(f"the log {path} can't be written to: {error.strerror}") from None

    def write(self, line: str) -> None:
        """Appends a line and flushes it: no kill takes it back from here on."""
        self._file = self._file or open(self.path, "ab")  # noqa: SIM115 - lives as long as the run
        with naming_file(self.path):
            self._file.write(line.encode("utf-8") + b"\n")
            self._file.flush()

    def is_at(self, path: str | None) -> bool:
        """Whether a path that a command names leads to this file."""
        return path is not None and os.path.realpath(path) == os.path.realpath(self.path)

    def close(self) -> None:
        """Closes the file."""
        if self._file is not None:
            with naming_file(self.path):
                self._file.close()


def check_run_log(path: Path) -> None:
    """Refuses a file that `RunLog` couldn't write to, and changes nothing.

    Raises:
        UserError: with the reason.
    """
    try:
        with open(path, "r+b") as file:
            _kept_size(file, path, 0, validated=True)
    except FileNotFoundError:
        return
    except OSError as error:
        raise UserError(f"the log {path} can't be written to: {error.strerror}") from None


def open_run_log(options: CheckpointOptions, ranks: Group, update: int, progress: Progress) -> RunLog | None:
    """Log of a run in its save-dir, on the rank that writes; None on the others and with `--no-save`.

    Args:
        options: where the run is kept.
        ranks: the processes of the run.
        update: the last update that was made.
        progress: where the run goes on from.
    """
    if options.no_save or not ranks.is_first:
        return None
    return RunLog(Path(options.save_dir) / RUN_LOG, update, validated=not progress.validation_pending)


def _kept_size(file: BinaryIO, path: Path, update: int, *, validated: bool) -> int:
    """Size in bytes of the lines up to an update."""
    file.seek(0)
    size = 0
    for text in file:
        line = _parsed(text)
        if line is None:
            if size == 0 and text.endswith(b"\n"):
                raise UserError(f"{path} is not the log of a run: move it away, or take another --save-dir")
            break
        if line["update"] > update or (line["event"] == "valid" and line["update"] == update and not validated):
            break
        size += len(text)
    return size


def _parsed(text: bytes) -> dict[str, Any] | None:
    """Whole line of a log, parsed; None for anything else."""
    try:
        line = json.loads(text) if text.endswith(b"\n") else None
    except ValueError:
        return None
    is_line = isinstance(line, dict) and type(line.get("update")) is int and "event" in line
    return line if is_line else None
