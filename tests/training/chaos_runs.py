"""A training run that is killed again and again: python chaos_runs.py DATA FOLDER KILLS SEED UPDATES RANKS.

It goes to FOLDER/killed, and one that is never killed to FOLDER/straight.

The process imports everything once and forks the ranks of each life of the run, so that 50 of them take seconds.
"""

from __future__ import annotations

import json
import mmap
import os
import random
import signal
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from failing_runs import fork_ranks, warm_up

import seqba.training.folder
import seqba.training.loop
from seqba.checkpoints.file import read_checkpoint
from seqba.cli.command import run
from seqba.cli.train import main
from seqba.training.batches import EpochUpdates
from seqba.training.folder import LAST
from seqba.training.trainer import Trainer

RUN = [
    *("--task", "language_modeling", "--arch", "awd_lstm", "--decoder-layers", "2", "--decoder-embed-dim", "8"),
    *("--decoder-hidden-size", "12", "--batch-size", "4", "--batch-size-valid", "2", "--bptt", "10", "--copies", "2"),
    *("--optimizer", "nt_asgd", "--nonmono", "1", "--lr", "2", "--clip-norm", "0.25", "--cpu", "--log-format", "none"),
    *("--save-interval-updates", "3", "--keep-interval-updates", "2", "--keep-best-checkpoints", "2"),
]
PHASES = ("start", "between", "data", "update", "validation", "checkpoint")


class Watch:
    """Where the ranks of a life are: a page of memory that they share with this process."""

    def __init__(self) -> None:
        self._page = mmap.mmap(-1, mmap.PAGESIZE)

    def reset(self) -> None:
        """Before a life begins."""
        self._page[:16] = bytes(16)

    def phase(self, rank: int) -> str:
        """What a rank is doing."""
        return PHASES[self._page[8 + rank]]

    def updates(self) -> int:
        """How many updates the run has come to."""
        return int(struct.unpack_from("q", self._page)[0])

    def follow(self, rank: int) -> None:
        """Has the functions of this process's rank tell where they are."""
        for owner, name, phase in (
            (EpochUpdates, "read", "data"),
            (Trainer, "update", "update"),
            (seqba.training.loop, "validate", "validation"),
            (seqba.training.folder, "write_checkpoint", "checkpoint"),
        ):
            setattr(owner, name, self._telling(getattr(owner, name), phase, rank))

    def _telling(self, original: Callable[..., Any], phase: str, rank: int) -> Callable[..., Any]:
        def instead(*given: Any, **named: Any) -> Any:
            self._page[8 + rank] = PHASES.index(phase)
            result = original(*given, **named)
            self._page[8 + rank] = PHASES.index("between")
            if phase == "update":
                struct.pack_into("q", self._page, 0, given[0].updates)
            return result

        return instead


def begin(data: str, folder: Path, updates: str, ranks: int, watch: Watch) -> list[int]:
    """Starts a life of the run, in processes of its own."""
    watch.reset()

    def be(rank: int) -> None:
        watch.follow(rank)
        os._exit(run(main, [data, "--save-dir", str(folder), "--max-update", updates, *RUN]))

    return fork_ranks(ranks, be)


def kill(children: list[int], victims: list[int]) -> None:
    """Ends some ranks at once, if they haven't come to their end by themselves; the others must end for that.

    As torchrun does, it sends SIGTERM to those, and kills who waits for the dead since the very start.
    """
    for rank in victims:
        os.kill(children[rank], signal.SIGKILL)
    end = time.monotonic() + 2
    left = dict(enumerate(children))
    while left:
        for rank, child in list(left.items()):
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                del left[rank]
                code = os.waitstatus_to_exitcode(status)
                assert rank in victims or code in (0, 2, 143, -signal.SIGKILL), f"rank {rank} ended with {code}"
            elif time.monotonic() > end:
                os.kill(child, signal.SIGKILL)
        time.sleep(0.002)


def finish(children: list[int]) -> None:
    """Lets a life come to its end."""
    for child in children:
        assert os.waitpid(child, 0)[1] == 0


def torment(data: str, folder: Path, kills: int, seed: int, updates: str, ranks: int) -> dict[str, Any]:
    """Kills the run at random moments, looks at every checkpoint each time, then lets it come to its end.

    Lives are up to twice as long as the first one, which ends with its first checkpoint: whatever the
    machine, some end before they did anything and some get on. Of several ranks any one is killed, or all.

    Returns:
        What it came to: updates at the first and the last kill, where kills fell, updates made again, checkpoints read.
    """
    watch, begun = Watch(), time.monotonic()
    started, children = time.monotonic(), begin(data, folder, updates, ranks, watch)
    while not (folder / LAST).exists():
        time.sleep(0.005)
    first_s = time.monotonic() - started
    kill(children, list(range(ranks)))
    reached, again, read, phases = [updates_of(folder / LAST)], 0, 0, Counter[str]()
    moments = random.Random(seed)  # noqa: S311
    for _ in range(kills):
        children = begin(data, folder, updates, ranks, watch)
        time.sleep(moments.uniform(0, 2 * first_s))
        victims = moments.choice([[rank] for rank in range(ranks)] + [list(range(ranks))])
        phases[watch.phase(victims[0])] += 1
        kill(children, victims)
        made = {path.name: updates_of(path) for path in folder.glob("*.pt")}
        assert made[LAST] >= reached[-1], f"from update {reached[-1]} back to {made[LAST]}"
        reached.append(made[LAST])
        read += len(made)
        again += max(0, watch.updates() - made[LAST])
    finish(begin(data, folder, updates, ranks, watch))
    return {
        "kills": kills,
        "ranks": ranks,
        "first": reached[0],
        "last": reached[-1],
        "fell in": dict(phases),
        "updates made again": again,
        "checkpoints read": read,
        "seconds": round(time.monotonic() - begun, 1),
        "first life's seconds": round(first_s, 2),
    }


def updates_of(path: Path) -> int:
    """How many updates a checkpoint has seen; it must be a whole one."""
    updates: int = read_checkpoint(path)["extra_state"]["trainer"]["updates"]
    return updates


if __name__ == "__main__":
    text, place, count, number, last, size = sys.argv[1:]
    warm_up()
    finish(begin(text, Path(place) / "straight", last, int(size), Watch()))
    figures = torment(text, Path(place) / "killed", int(count), int(number), last, int(size))
    sys.stdout.write(json.dumps(figures) + "\n")
