"""Runs on several ranks in which something goes wrong at a named place.

    python failing_runs.py                              # forks the ranks of each run that a line on stdin asks for
    torchrun … failing_runs.py FAILURE DATA [OPTION…]   # is one rank of one run

The failure is put into the running program from here: seqba itself knows nothing of it.
"""

from __future__ import annotations

import errno
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch

import seqba.checkpoints.file
import seqba.training.loop
from seqba.cli.command import run
from seqba.cli.train import main
from seqba.distributed import Ranks
from seqba.errors import UserError
from seqba.training.batches import EpochUpdates
from seqba.training.loop import TrainingLoop
from seqba.training.trainer import Trainer

RUN = [
    *("--task", "language_modeling", "--arch", "awd_lstm", "--decoder-layers", "2", "--decoder-embed-dim", "8"),
    *("--decoder-hidden-size", "12", "--batch-size", "4", "--batch-size-valid", "2", "--bptt", "10", "--copies", "3"),
    *("--optimizer", "nt_asgd", "--nonmono", "1", "--lr", "2", "--clip-norm", "0.25", "--cpu", "--max-update", "14"),
    *("--log-format", "json", "--log-interval", "1", "--save-interval-updates", "4", "--distributed-timeout", "20"),
]
"""Fourteen updates, each with a state that the next one needs, and a validation and a checkpoint after every fourth."""


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


@dataclass(frozen=True)
class Ended:
    """How the processes of a run ended.

    Attributes:
        statuses: of the ranks; negative for a signal.
        told: what each wrote on stderr.
        orphans: ranks that had to be killed after a minute.
    """

    statuses: list[int]
    told: list[str]
    orphans: list[int]


class Launcher:
    """Starts runs on several ranks, from one process that has imported everything once."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            env={**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(
        self,
        folder: Path,
        *options: str,
        failure: Failure | None = None,
        ranks: int = 2,
        grace_s: float | None = None,
    ) -> Ended:
        """Trains into `folder`, and waits until all ranks have ended.

        Args:
            folder: the save-dir.
            options: further ones.
            failure: what goes wrong; not again where it did in that folder before.
            ranks: how many.
            grace_s: None leaves each rank to itself; else, as torchrun does it, the others of one that failed get
                SIGTERM, and SIGKILL after so many seconds.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        arguments = [str(self.data), "--save-dir", str(folder), *RUN, *options]
        asked = {"ranks": ranks, "failure": failure and asdict(failure), "arguments": arguments, "grace_s": grace_s}
        self._process.stdin.write(json.dumps({**asked, "folder": str(folder)}) + "\n")
        self._process.stdin.flush()
        return Ended(**json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        """Ends the process."""
        self._process.communicate()


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


def serve() -> None:
    """Forks the ranks of each run that is asked for, and tells how they ended; a rank never comes back from here."""
    for line in sys.stdin:
        asked = json.loads(line)
        folder = Path(asked["folder"])
        folder.mkdir(exist_ok=True)
        files = [folder / f"rank{rank}.txt" for rank in range(asked["ranks"])]

        def be(rank: int, asked: dict[str, Any] = asked, folder: Path = folder, files: list[Path] = files) -> None:
            os.dup2(os.open(os.devnull, os.O_RDWR), 0)
            os.dup2(0, 1)
            os.dup2(os.open(files[rank], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
            be_a_rank(asked["failure"], folder / "it_happened", asked["arguments"])

        children = fork_ranks(asked["ranks"], be)
        statuses, orphans = _wait(children, asked["grace_s"])
        told = [file.read_text() for file in files]
        sys.stdout.write(json.dumps({"statuses": statuses, "told": told, "orphans": orphans}) + "\n")
        sys.stdout.flush()


def fork_ranks(ranks: int, be: Callable[[int], None]) -> list[int]:
    """Forks the processes of a run, which torch can tell apart; each calls `be`, which ends it. Returns their ids."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    children = []
    for rank in range(ranks):
        child = os.fork()
        if child == 0:
            where = {"RANK": rank, "WORLD_SIZE": ranks, "MASTER_ADDR": "localhost", "MASTER_PORT": port}
            os.environ.update({name: str(value) for name, value in where.items()})
            be(rank)
        children.append(child)
    return children


def warm_up() -> None:
    """Makes forked children quick: they find everything imported, and their ends don't go through all of it again."""
    torch.set_num_threads(1)
    torch.optim.SGD([torch.zeros(1)])  # the first optimizer of a process imports half of torch
    gc.freeze()


def _wait(children: list[int], grace_s: float | None) -> tuple[list[int], list[int]]:
    """Waits for the ranks; with a grace as torchrun does: SIGTERM for the others of one that failed, then SIGKILL.

    Returns:
        Their statuses, and the ranks that had not ended by themselves after a minute.
    """
    statuses: dict[int, int] = {}
    terminated_at, started = None, time.monotonic()
    orphans: list[int] = []
    while len(statuses) < len(children):
        ended, status = os.waitpid(-1, os.WNOHANG)
        if ended:
            statuses[ended] = os.waitstatus_to_exitcode(status)
        left = [child for child in children if child not in statuses]
        now = time.monotonic()
        if grace_s is not None and terminated_at is None and any(statuses.values()):
            terminated_at = now
            for child in left:
                os.kill(child, signal.SIGTERM)
        is_late = now > started + 60
        if is_late:
            orphans = [children.index(child) for child in left]
        if is_late or (grace_s is not None and terminated_at is not None and now > terminated_at + grace_s):
            for child in left:
                os.kill(child, signal.SIGKILL)
        time.sleep(0.01)
    return [statuses[child] for child in children], orphans


def be_a_rank(failure: dict[str, Any] | None, flag: Path, arguments: list[str]) -> None:
    """Trains as this process's rank, and ends the process as a command ends."""
    remember_loop()
    if failure is not None:
        arm(Failure(**failure), flag)
    status = run(main, arguments)
    names = [name.read_text().strip() for name in Path("/proc/self/task").glob("*/comm")]
    if any("gloo" in name for name in names):
        sys.stderr.write(f"threads that outlive their group: {names}\n")
    sys.exit(status)


if __name__ == "__main__":
    if len(sys.argv) == 1:
        warm_up()
        serve()
    else:
        torch.set_num_threads(1)
        asked_for, *given = sys.argv[1:]
        save_dir = Path(given[given.index("--save-dir") + 1])
        be_a_rank(json.loads(asked_for), save_dir / "it_happened", given)
