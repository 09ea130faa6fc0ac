"""Checkpoint files: written whole or not at all, read without running anything in them, and checked when opened.

Keys are fairseq's where they mean the same: `model` (the plain state_dict), `args` (None), `cfg`, `optimizer_history`,
`task_state`, `extra_state`, `last_optimizer_state`.
"""

from __future__ import annotations

import errno
import io
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import torch
from torch import Tensor

from seqba.checkpoints.archive import read_archive
from seqba.checkpoints.fairseq import convert_fairseq, is_fairseq
from seqba.checkpoints.marian import convert_marian
from seqba.data.files import atomic_write
from seqba.data.marian import is_marian_folder
from seqba.data.partial import partial_name, remove_abandoned
from seqba.errors import UserError
from seqba.models.config import DecoderConfig, TransformerConfig
from seqba.models.families import ARCHITECTURES, FAMILIES

FIRST_KEY_VERSION = 1
"""What drew the noise of checkpoints that don't say which `seqba.noise.sites.KEY_VERSION` they are of."""


REQUIRED = {"model": dict, "cfg": dict, "task_state": dict, "extra_state": dict, "optimizer_history": list}


def write_checkpoint(path: str | Path, state: Mapping[str, Any]) -> None:
    """Writes a checkpoint that is whole as soon as it has its name.

    Raises:
        OSError: where the file system fails (a full disk, say); the file that had the name before is untouched.
    """
    handled = sys.exc_info()[1]  # Ctrl-C itself, where the checkpoint is written because of it
    # The writer is closed before its file: Python would flush it later, when it lets go of it, into a closed one.
    with atomic_write(path) as file, _RememberingWriter(file) as guarded:
        try:
            torch.save(dict(state), cast(IO[bytes], guarded))
        except RuntimeError as error:
            # torch's zip writer reports a failed write as an internal error of its own, and so a signal during one.
            failure = guarded.failure or OSError(errno.EIO, "writing failed", str(path))
            raise _interruption(error, handled) or failure from None


def _interruption(error: BaseException, handled: BaseException | None) -> BaseException | None:
    """What ended a write that wasn't the file's failure: Ctrl-C, or a signal that leaves by SystemExit.

    Args:
        error: of the write.
        handled: what was being handled as the write began, and so didn't end it.
    """
    cause: BaseException | None = error
    while isinstance(cause, Exception) and cause is not handled:
        cause = cause.__cause__ or cause.__context__
    return None if cause is handled else cause


def copy_checkpoint(source: Path, target: Path) -> None:
    """Gives a checkpoint a second name, atomically: a hard link where there are any, else a copy.

    Checkpoints are replaced, never changed in place, so that a link is as good as a copy and takes neither time nor
    room.
    """
    remove_abandoned(target)
    partial = partial_name(target)
    try:
        os.link(source, partial)
        partial.replace(target)
    except OSError:  # no links here; or another writer took this one, which has no lock, for left behind
        with source.open("rb") as old, atomic_write(target) as new:
            shutil.copyfileobj(old, new, 1 << 24)
    finally:
        partial.unlink(missing_ok=True)  # also where both names were of the same file, which a rename leaves alone


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Reads a checkpoint into CPU memory and checks that it is one of seqba's.

    One of fairseq's is converted, and so is a folder of Marian's.

    Raises:
        UserError: for a file that is missing, truncated, of another program, or lacks a part.
    """
    state, foreign = (convert_marian(path), []) if is_marian_folder(path) else read_archive(path)
    if is_fairseq(state):
        state = convert_fairseq(state, path)
    elif foreign:
        raise UserError(
            f"checkpoint {path} holds more than tensors and plain values ({foreign[0]}), so it is neither of "
            "seqba-train nor of fairseq, or it is damaged"
        )
    if not isinstance(state, dict):
        raise UserError(f"checkpoint {path} holds a {type(state).__name__}, not a run of seqba-train")
    for key, kind in REQUIRED.items():
        if not isinstance(state.get(key), kind):
            raise UserError(f"checkpoint {path} was not written by seqba-train: it has no {key!r}")
    if not all(isinstance(value, Tensor) for value in state["model"].values()):
        raise UserError(f"checkpoint {path} is damaged: 'model' holds more than tensors")
    if not all(isinstance(entry, dict) for entry in state["optimizer_history"]):
        raise UserError(f"checkpoint {path} is damaged: 'optimizer_history' holds more than entries")
    if type(count_updates(state)) is not int:
        raise UserError(f"checkpoint {path} is damaged: it has seen {count_updates(state)!r} updates")
    _say_what_older_versions_left_out(state["cfg"])
    return state


def count_updates(state: Mapping[str, Any]) -> int:
    """Number of updates of a checkpoint's weights (0 where it says nothing)."""
    history = state["optimizer_history"]
    updates: int = history[-1].get("num_updates", 0) if history else 0
    return updates


def model_options(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """The model's options that a checkpoint's cfg has; none where it describes no model."""
    model = cfg.get("model")
    options = model.get("options") if isinstance(model, dict) else None
    return options if isinstance(options, dict) else {}


def _say_what_older_versions_left_out(cfg: dict[str, Any]) -> None:
    """Adds options to a checkpoint's cfg that were constants when it was written."""
    cfg.setdefault("key_version", FIRST_KEY_VERSION)
    options = model_options(cfg)
    family = FAMILIES.get(ARCHITECTURES.get(str(cfg["model"].get("arch")), "")) if options else None
    if family is not None and issubclass(family.config, DecoderConfig):
        options.setdefault("first_position", 0)
        options.setdefault("sinusoids", "tensor2tensor")
    if family is not None and issubclass(family.config, TransformerConfig):
        options.setdefault("start_symbol", "eos")


class _RememberingWriter(io.RawIOBase):
    """Passes writes on, and remembers the error of the file system that torch's writer hides."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self._file = file
        self.failure: OSError | None = None

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        try:
            return self._file.write(data)
        except OSError as error:
            self.failure = error
            raise

    def flush(self) -> None:
        try:
            self._file.flush()
        except OSError as error:
            self.failure = error
            raise
