"""A training run that is killed again and again: python chaos_runs.py DATA FOLDER KILLS SEED UPDATES.

The process imports everything once and forks a child for each life of the run, so that 50 of them take seconds.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

from seqba.cli.command import run
from seqba.cli.train import main
from seqba.training.checkpoint import read_checkpoint
from seqba.training.folder import LAST

RUN = [
    *("--task", "language_modeling", "--arch", "awd_lstm", "--decoder-layers", "2", "--decoder-embed-dim", "8"),
    *("--decoder-hidden-size", "12", "--batch-size", "4", "--batch-size-valid", "2", "--bptt", "10", "--copies", "2"),
    *("--optimizer", "nt_asgd", "--nonmono", "1", "--lr", "2", "--clip-norm", "0.25", "--cpu", "--log-format", "none"),
    *("--save-interval-updates", "3", "--keep-interval-updates", "2", "--keep-best-checkpoints", "2"),
]


def begin(data: str, folder: Path, updates: str) -> int:
    """Starts a life of the run, in a process of its own."""
    child = os.fork()
    if child == 0:
        os._exit(run(main, [data, "--save-dir", str(folder), "--max-update", updates, *RUN]))
    return child


def kill(child: int) -> None:
    """Ends a life at once, if it hasn't come to its end by itself."""
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def torment(data: str, folder: Path, kills: int, seed: int, updates: str) -> None:
    """Kills the run at random moments, looks at every checkpoint each time, then lets it come to its end.

    Lives are up to two and a half times as long as the first one, which ends with its first checkpoint: whatever the
    machine, some end before they did anything and some get on. Writes the updates of the first and the last of them.
    """
    started, child = time.monotonic(), begin(data, folder, updates)
    while not (folder / LAST).exists():
        time.sleep(0.005)
    first_s = time.monotonic() - started
    kill(child)
    reached = [updates_of(folder / LAST)]
    moments = random.Random(seed)  # noqa: S311
    for _ in range(kills):
        child = begin(data, folder, updates)
        time.sleep(moments.uniform(0, 2.5 * first_s))
        kill(child)
        made = {path.name: updates_of(path) for path in folder.glob("*.pt")}
        assert made[LAST] >= reached[-1], f"from update {reached[-1]} back to {made[LAST]}"
        reached.append(made[LAST])
    sys.stdout.write(f"{reached[0]} {reached[-1]}\n")
    _, status = os.waitpid(begin(data, folder, updates), 0)
    assert status == 0


def updates_of(path: Path) -> int:
    """How many updates a checkpoint has seen; it must be a whole one."""
    updates: int = read_checkpoint(path)["extra_state"]["trainer"]["updates"]
    return updates


if __name__ == "__main__":
    torch.set_num_threads(1)
    text, place, count, number, last = sys.argv[1:]
    torment(text, Path(place), int(count), int(number), last)
