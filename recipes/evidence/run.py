"""Makes the runs of the studies side by side, and records each: `bash recipes/evidence.sh` starts it.

Every run is a process of its own, forked from this one, which has imported all there is to import and touched no GPU.
"""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

import torch
from making import STOPPED, Places, make_run
from prepare import prepare
from record import is_finished, read_records
from studies import STUDIES, runs_of
from study import SEEDS, Run

from seqba.cli.command import run as run_command
from seqba.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
FINISHED, FAILED, UNFINISHED = 0, 1, 124
GRACE_S = 20.0

COMMANDS = ("train", "eval_lm", "eval_image", "generate", "score", "measure", "advise")
BROUGHT_LATE = ("seqba.training.run", "seqba.models.builders", "sacrebleu", "sentencepiece")
"""Imports that commands leave for later; here they come once, before the runs are forked."""


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--from", dest="raw", type=Path, help="folder with the raw corpora; else they are downloaded")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "evidence", help="data, checkpoints and logs")
    parser.add_argument("--data", type=Path, help="prepared data (OUT/data)")
    parser.add_argument("--results", type=Path, default=ROOT / "recipes" / "results", help="records of runs")
    parser.add_argument("--only", default="", help="studies, or runs by the beginning of their names, with commas")
    parser.add_argument("--seeds", default=",".join(map(str, SEEDS)), help="with commas (%(default)s)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="runs side by side (%(default)s)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--time-limit", type=float, default=0.0, help="seconds until all runs are stopped; 0 = none")
    parser.add_argument("--updates", type=int, help="shorten longer runs to so many, with their schedules")
    parser.add_argument("--vocab", type=int, help="subwords, for a text too small for the study's own number")
    parser.add_argument("--list", action="store_true", help="show the runs and what they cost, and make none")
    return parser.parse_args(arguments)


def chosen_runs(only: str, seeds: str, updates: int | None) -> list[Run]:
    """Runs that --only and --seeds name, in the order of --only.

    Raises:
        UserError: if they name none.
    """
    runs = runs_of(STUDIES, [int(seed) for seed in seeds.split(",")], updates)
    found = [run for start in only.split(",") for run in runs if run.name.startswith(start)]
    found = list(dict.fromkeys(found))
    if not found:
        raise UserError(f"--only {only} names none of {', '.join(study.name for study in STUDIES)}")
    return found


def tell_cost(runs: Sequence[Run], results: Path, jobs: int) -> None:
    """Prints a line for each arm, and what is left to do in all."""
    known = {}
    for record in read_records(results):
        label = f"{record['study']}.{record['arm']}.{record['copies']}.{record['variant']}"
        known.setdefault(label, []).append(record["seconds_of_updates"] / record["updates"])
    total, unknown = 0.0, 0
    arms: dict[str, list[Run]] = {}
    for run in runs:
        arms.setdefault(f"{run.study.name}.{run.arm.label}", []).append(run)
    for name, members in arms.items():
        first = members[0]
        seconds = known.get(f"{first.study.name}.{first.arm.name}.{first.arm.copies}.{first.arm.variant}")
        done = sum(is_finished(run, results) for run in members)
        each = None if seconds is None else sum(seconds) / len(seconds) * first.updates
        total += (each or 0.0) * (len(members) - done)
        unknown += (each is None) * (len(members) - done)
        cost = "not measured yet" if each is None else f"about {each:.0f} s each"
        print(f"{name:45s} {first.updates:6d} updates, {done} of {len(members)} runs done, {cost}")
    left = sum(not is_finished(run, results) for run in runs)
    print(
        f"{left} runs to make: about {total / 3600 / max(1, jobs):.1f} h with {jobs} side by side, by the times in "
        f"{results}" + (f", and {unknown} runs whose time isn't known" if unknown else ""),
        flush=True,
    )


class Stop:
    """A flag that SIGTERM and SIGINT set."""

    def __init__(self) -> None:
        self.is_set = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._receive)

    def _receive(self, *_: object) -> None:
        self.is_set = True


def make_all(
    runs: Sequence[Run], places: dict[str, Places], jobs: int, until: float | None, stop: Stop, *, needs_gpu: bool
) -> int:
    """Makes runs side by side, in order, until all are made or the time is up.

    Returns:
        How many failed.
    """
    waiting, going, failed = list(runs), {}, 0
    while waiting or going:
        is_over = stop.is_set or (until is not None and time.monotonic() > until)
        if is_over:
            waiting.clear()
            failed += _stop_all(going)
            break
        while waiting and len(going) < jobs:
            run = waiting.pop(0)
            going[_fork(run, places[run.study.data], needs_gpu=needs_gpu)] = (run, time.monotonic())
        for process in list(going):
            ended, status = os.waitpid(process, os.WNOHANG)
            if ended:
                failed += _tell(*going.pop(process), status)
        time.sleep(0.05)
    return failed


def _fork(run: Run, places: Places, *, needs_gpu: bool) -> int:
    """Starts a run in a process of its own."""
    process = os.fork()
    if process:
        return process
    status = FAILED
    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
        if needs_gpu and not torch.cuda.is_available():  # asked here, as a GPU that was looked at can't be forked
            raise SystemExit("--device cuda: there is no GPU that torch can use")
        status = make_run(run, places)
    except BaseException:
        folder = places.runs / run.name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "traceback.txt").write_text(traceback.format_exc(), encoding="utf-8")
    finally:
        os._exit(status & 255)


def _stop_all(going: dict[int, tuple[Run, float]]) -> int:
    """Asks all runs to stop, waits until they have saved, and ends those that don't; returns how many failed."""
    for process in going:
        os.kill(process, signal.SIGTERM)
    failed, deadline = 0, time.monotonic() + GRACE_S
    while going:
        for process in list(going):
            ended, status = os.waitpid(process, os.WNOHANG)
            if ended:
                failed += _tell(*going.pop(process), status)
            elif time.monotonic() > deadline:
                os.kill(process, signal.SIGKILL)
        time.sleep(0.05)
    return failed


def _tell(run: Run, began: float, status: int) -> bool:
    """Prints how a run ended; returns whether it failed."""
    code = os.waitstatus_to_exitcode(status)
    stopped = code in (STOPPED, -signal.SIGTERM, -signal.SIGKILL)
    words = "finished" if code == 0 else "stopped, the same command goes on" if stopped else f"FAILED with {code}"
    print(f"{run.name:45s} {words}, {time.monotonic() - began:.0f} s", flush=True)
    return code != 0 and not stopped


def main(arguments: Sequence[str] | None = None) -> int:
    """Makes the runs that are asked for."""
    began = time.monotonic()
    given = parse(arguments)
    runs = chosen_runs(given.only, given.seeds, given.updates)
    tell_cost(runs, given.results, given.jobs)
    if given.list:
        return FINISHED
    stop = Stop()
    data = given.data or given.out / "data"
    left = [run for run in runs if not is_finished(run, given.results)]
    places = {
        name: Places(
            prepare(name, data, given.raw, given.vocab), given.out / "runs", given.results, given.device == "cpu"
        )
        for name in dict.fromkeys(run.study.data for run in left)
    }
    for name in (*(f"seqba.cli.{command}" for command in COMMANDS), *BROUGHT_LATE):
        importlib.import_module(name)
    until = began + given.time_limit if given.time_limit else None
    failed = make_all(left, places, given.jobs, until, stop, needs_gpu=given.device == "cuda")
    unfinished = sum(not is_finished(run, given.results) for run in runs)
    print(f"{len(runs) - unfinished} of {len(runs)} runs are finished", flush=True)
    return FAILED if failed else UNFINISHED if unfinished else FINISHED


if __name__ == "__main__":
    sys.exit(run_command(main))
