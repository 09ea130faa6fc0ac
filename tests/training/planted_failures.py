"""Failures at a named place of a running program, put there from outside: seqba itself knows nothing of them."""

from __future__ import annotations

import errno
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import seqba.checkpoints.file
import seqba.training.loop
from seqba.distributed import Ranks
from seqba.errors import UserError
from seqba.training.batches import EpochUpdates
from seqba.training.loop import TrainingLoop
from seqba.training.trainer import Trainer


@dataclass(frozen=True)
class Failure:
    """What goes wrong, where, and when: once, after so many updates.

    Attributes:
        what: a signal's name (in the plural: twice), "bug", "hang", "full disk" or "unreadable".
        phase: data, forward, all-reduce, validation or checkpoint.
        rank: of the process in which it happens.
        updates: that have been made by then.
        to_agent: whether it is torchrun's own process that gets the signal.
        disk_s: seconds that a checkpoint takes to be written from then on.
    """

    what: str
    phase: str
    rank: int
    updates: int = 8
    to_agent: bool = False
    disk_s: float = 0.0


def arm(failure: Failure, flag: Path) -> None:
    """Puts a failure into this process, if it is the one; `flag` is a file that says that it has happened."""
    rank = int(os.environ["RANK"])
    if failure.disk_s and not flag.exists():
        _slow_writing(failure.disk_s, flag)
    if failure.phase == "all-reduce" and rank != failure.rank:
        _before(Ranks, "add_up", failure, flag, lambda: time.sleep(1))  # so that it comes while the other waits here
        return
    if rank != failure.rank:
        return
    if failure.phase == "data":
        _before(EpochUpdates, "_read", failure, flag, lambda: _fail(failure, flag), training=None)
    elif failure.phase == "forward":
        _before(Trainer, "loss", failure, flag, lambda: _fail(failure, flag))
    elif failure.phase == "validation" and failure.what == "unreadable":
        _spoil_validation(failure, flag)
    elif failure.phase == "validation":
        _before(Trainer, "loss", failure, flag, lambda: _fail(failure, flag), training=False)
    elif failure.phase == "all-reduce":
        later = threading.Timer(0.5, _fail, (failure, flag))
        later.daemon = True
        _before(Ranks, "add_up", failure, flag, later.start)
    elif rank == 0:
        _in_the_middle_of_writing(failure, flag)
    else:
        _before(seqba.training.loop, "capture", failure, flag, lambda: _fail(failure, flag), training=None)


def _before(
    owner: Any, name: str, failure: Failure, flag: Path, act: Callable[[], None], *, training: bool | None = True
) -> None:
    """Has `act` done once before a function of seqba's, in an update, in a validation or in whatever follows one."""
    original, done = getattr(owner, name), [flag.exists()]

    def instead(*given: Any) -> Any:
        loop = _LOOPS[-1]
        is_there = training is None or loop.trainer.model.training == training
        if is_there and loop.trainer.updates == failure.updates and not done[0]:
            done[0] = True
            act()
        return original(*given)

    setattr(owner, name, instead)


def _spoil_validation(failure: Failure, flag: Path) -> None:
    """Has the second batch of a split that can't be read."""
    original = seqba.training.loop.validate

    class Spoilt:
        def __init__(self, batches: Any) -> None:
            self.batches = batches

        def __len__(self) -> int:
            return len(self.batches)

        def __getitem__(self, number: int) -> Any:
            if number == 1 and _LOOPS[-1].trainer.updates == failure.updates and not flag.exists():
                _fail(failure, flag)
            return self.batches[number]

    def instead(trainer: Any, batches: Any, should_stop: Any) -> Any:
        return original(trainer, Spoilt(batches), should_stop)

    seqba.training.loop.validate = instead


def _in_the_middle_of_writing(failure: Failure, flag: Path) -> None:
    original, done = seqba.checkpoints.file.atomic_write, [flag.exists()]

    class Tripwire:
        def __init__(self, file: BinaryIO) -> None:
            self.file = file
            self.flush = file.flush

        def write(self, data: Any) -> int:
            written = self.file.write(data)
            if self.file.tell() > 2000 and _LOOPS[-1].trainer.updates == failure.updates and not done[0]:
                done[0] = True
                _fail(failure, flag)
            return written

    @contextmanager
    def instead(path: Path) -> Iterator[Tripwire]:
        with original(path) as file:
            yield Tripwire(file)

    seqba.checkpoints.file.atomic_write = instead  # type: ignore[assignment]


def _slow_writing(seconds: float, flag: Path) -> None:
    original = seqba.checkpoints.file.atomic_write

    @contextmanager
    def instead(path: Path) -> Iterator[BinaryIO]:
        with original(path) as file:
            yield file
            time.sleep(seconds if flag.exists() else 0)

    seqba.checkpoints.file.atomic_write = instead


def _fail(failure: Failure, flag: Path) -> None:
    flag.touch()
    if failure.what == "bug":
        raise ValueError("a bug\nof two lines")
    if failure.what == "unreadable":
        raise UserError("picture 7 can't be read")
    if failure.what == "full disk":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if failure.what == "hang":
        while True:
            time.sleep(1000)
    for _ in range(2 if failure.what.endswith("s") else 1):
        os.kill(os.getppid() if failure.to_agent else os.getpid(), getattr(signal, failure.what.rstrip("s")))


_LOOPS: list[TrainingLoop] = []


def remember_loop() -> None:
    """Keeps the loop that runs in this process where failures find it."""
    original = TrainingLoop.run

    def instead(loop: TrainingLoop, stop: Any) -> Any:
        _LOOPS.append(loop)
        try:
            return original(loop, stop)
        finally:
            _LOOPS.clear()

    TrainingLoop.run = instead  # type: ignore[method-assign]
