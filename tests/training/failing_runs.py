"""Runs on several ranks in which something goes wrong at a named place.

    python failing_runs.py                              # forks the ranks of each run that a line on stdin asks for
    torchrun … failing_runs.py FAILURE DATA [OPTION…]   # is one rank of one run

`planted_failures.py` puts the failure into the running program.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from planted_failures import Failure, arm, remember_loop

from seqba.cli.command import run
from seqba.cli.train import main

RUN = [
    *("--task", "language_modeling", "--arch", "awd_lstm", "--decoder-layers", "2", "--decoder-embed-dim", "8"),
    *("--decoder-hidden-size", "12", "--batch-size", "4", "--batch-size-valid", "2", "--bptt", "10", "--copies", "3"),
    *("--optimizer", "nt_asgd", "--nonmono", "1", "--lr", "2", "--clip-norm", "0.25", "--cpu", "--max-update", "14"),
    *("--log-format", "json", "--log-interval", "1", "--save-interval-updates", "4", "--distributed-timeout", "20"),
]
"""Fourteen updates, each with a state that the next one needs, and a validation and a checkpoint after every fourth."""


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
