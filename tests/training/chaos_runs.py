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

RUN = [
    *("--task", "language_modeling", "--arch", "awd_lstm", "--decoder-layers", "2", "--decoder-embed-dim", "8"),
    *("--decoder-hidden-size", "12", "--batch-size", "4", "--batch-size-valid", "2", "--bptt", "10", "--copies", "2"),
    *("--optimizer", "nt_asgd", "--nonmono", "1", "--lr", "2", "--clip-norm", "0.25", "--cpu", "--log-format", "none"),
    *("--save-interval-updates", "3", "--keep-interval-updates", "2", "--keep-best-checkpoints", "2"),
]


def live(data: str, folder: Path, updates: str, seconds: float | None) -> int | None:
    """One life of the run: killed after so many seconds; its exit status if it ended before."""
    child = os.fork()
    if child == 0:
        os._exit(run(main, [data, "--save-dir", str(folder), "--max-update", updates, *RUN]))
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return None if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def torment(data: str, folder: Path, kills: int, seed: int, updates: str) -> None:
    """Kills the run at random moments, looks at every checkpoint each time, then lets it come to its end.

    Writes the update that the last kill left, to stdout.
    """
    moments = random.Random(seed)  # noqa: S311
    reached = 0
    for _ in range(kills):
        live(data, folder, updates, moments.uniform(0.05, 1.5))
        for path in folder.glob("*.pt"):
            made = read_checkpoint(path)["extra_state"]["trainer"]["updates"]
            if path.name == "checkpoint_last.pt":
                assert made >= reached, f"{path} went back from update {reached} to {made}"
                reached = made
    sys.stdout.write(f"{reached}\n")
    assert live(data, folder, updates, None) == 0


if __name__ == "__main__":
    torch.set_num_threads(1)
    text, place, count, number, last = sys.argv[1:]
    torment(text, Path(place), int(count), int(number), last)
