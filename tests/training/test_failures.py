"""What goes wrong on one of several ranks: all of them end, each says why, and nothing that was saved is lost."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from alphabet import write_alphabet
from failing_runs import RUN, Ended, Launcher
from planted_failures import Failure

from seqba.checkpoints.file import read_checkpoint
from seqba.training.folder import LAST

PHASES = ("data", "forward", "all-reduce", "validation", "checkpoint")
NEWS = ("awd_lstm: ", "an update: ", "until update ", "products in ", "going on from")
"""What the first rank says anyway."""


@pytest.fixture(scope="module")
def launch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launcher]:
    launcher = Launcher(write_alphabet(tmp_path_factory.mktemp("text") / "data-bin"))
    yield launcher
    launcher.close()


@pytest.fixture(scope="module")
def straight(launch: Launcher, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on two ranks in which nothing went wrong."""
    folder = tmp_path_factory.mktemp("straight")
    assert launch(folder).statuses == [0, 0]
    return folder


def updates_of(folder: Path) -> int:
    """How far the last checkpoint is; all of them must be whole."""
    made = {path.name: read_checkpoint(path)["extra_state"]["trainer"]["updates"] for path in folder.glob("*.pt")}
    return int(made[LAST])


def assert_goes_on(launch: Launcher, folder: Path, straight: Path, failure: Failure) -> None:
    """The same command comes to the end that it would have come to."""
    ended = launch(folder, failure=failure)
    assert ended.statuses == [0, 0], ended.told
    assert {path.name for path in folder.glob("*.pt")} == {path.name for path in straight.glob("*.pt")}
    assert not list(folder.glob(".*.partial"))
    assert_same_weights(folder, straight)


def assert_same_weights(folder: Path, straight: Path) -> None:
    """To the last bit, and so is what is carried to the next update."""
    went_on, never_failed = (read_checkpoint(place / LAST) for place in (folder, straight))
    for name, weight in never_failed["model"].items():
        assert torch.equal(went_on["model"][name], weight), name
    carried = [state["extra_state"]["trainer"]["carried"]["shards"][0] for state in (went_on, never_failed)]
    assert all(torch.equal(one, other) for one, other in zip(*carried, strict=True))


def assert_lost(ended: Ended, rank: int) -> None:
    """This rank has ended by itself, and says in one line that another one has."""
    lines = [line for line in ended.told[rank].splitlines() if not line.startswith(NEWS)]
    assert len(lines) == 1, ended.told[rank]
    assert lines[0].startswith(f"error: rank {rank}: another rank has ended, or gave no answer within")
    assert lines[0].endswith("the last checkpoint stands, and the same command goes on from it")
    assert "third_party" not in lines[0]  # no place in somebody else's source
    assert ended.statuses[rank] == 2
    assert not ended.orphans


@pytest.mark.slow
@pytest.mark.parametrize(("phase", "rank"), list(itertools.product(PHASES, (0, 1))))
def test_sigterm_in_any_phase_on_any_rank_stops_all_with_a_checkpoint(
    launch: Launcher, straight: Path, tmp_path: Path, phase: str, rank: int
) -> None:
    failure = Failure("SIGTERM", phase, rank)
    folder = tmp_path / "run"
    ended = launch(folder, failure=failure)
    assert ended.statuses == [143, 143]
    stopped_at = updates_of(folder)
    assert ended.told[0].splitlines()[-1].startswith(f"stopped by SIGTERM to rank {rank} after update {stopped_at}, ")
    assert ended.told[1] == ""
    assert 8 <= stopped_at <= 10  # what was begun is brought to its end, and no more
    assert_goes_on(launch, folder, straight, failure)


@pytest.mark.slow
@pytest.mark.parametrize("what", ["SIGTERM", "unreadable"])
def test_no_rank_leaves_before_the_last_checkpoint_is_written(
    launch: Launcher, straight: Path, tmp_path: Path, what: str
) -> None:
    # As soon as one has left with a status, torchrun sends SIGTERM to the others, here to the one that writes: it may
    # be its second signal, and torchrun's patience may be shorter than a checkpoint takes.
    failure = Failure(what, "data", rank=0, updates=9, disk_s=2)
    folder = tmp_path / "run"
    launch(folder, failure=failure, grace_s=0.5)
    assert updates_of(folder) == 10
    assert_goes_on(launch, folder, straight, failure)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("phase", "rank"), [("data", 1), ("forward", 0), ("validation", 1), ("checkpoint", 0), ("checkpoint", 1)]
)
def test_a_second_sigterm_ends_at_once_and_breaks_nothing(
    launch: Launcher, straight: Path, tmp_path: Path, phase: str, rank: int
) -> None:
    # But for a rank that waits for another's message: it hears no signal before it comes, or the timeout.
    failure = Failure("SIGTERMs", phase, rank)
    folder = tmp_path / "run"
    ended = launch(folder, failure=failure)
    assert ended.statuses[rank] == -signal.SIGTERM
    assert_lost(ended, 1 - rank)
    assert updates_of(folder) == (4 if phase in ("validation", "checkpoint") else 8)
    assert_goes_on(launch, folder, straight, failure)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("phase", "rank"), [("all-reduce", 0), ("validation", 0), ("validation", 1), ("checkpoint", 1)]
)
def test_of_a_killed_rank_the_others_tell(launch: Launcher, tmp_path: Path, phase: str, rank: int) -> None:
    ended = launch(tmp_path, failure=Failure("SIGKILL", phase, rank))
    assert ended.statuses[rank] == -signal.SIGKILL
    assert_lost(ended, 1 - rank)
    assert updates_of(tmp_path) == (4 if phase in ("validation", "checkpoint") else 8)


@pytest.mark.slow
@pytest.mark.parametrize(("phase", "rank"), [("forward", 1), ("validation", 0), ("data", 0), ("checkpoint", 1)])
def test_a_bug_tells_its_traceback_and_whose_it_is(launch: Launcher, tmp_path: Path, phase: str, rank: int) -> None:
    ended = launch(tmp_path, failure=Failure("bug", phase, rank))
    assert ended.statuses[rank] == 1
    lines = [line for line in ended.told[rank].splitlines() if not line.startswith(NEWS)]
    assert lines[0] == f"[rank{rank}]: Traceback (most recent call last):"
    assert lines[-2:] == [f"[rank{rank}]: ValueError: a bug", f"[rank{rank}]: of two lines"]
    assert all(line.startswith(f"[rank{rank}]: ") for line in lines)  # and no noise of a group that is taken down
    assert_lost(ended, 1 - rank)
    assert updates_of(tmp_path) == (4 if phase in ("validation", "checkpoint") else 8)


@pytest.mark.slow
@pytest.mark.parametrize(("phase", "rank"), [("data", 1), ("forward", 0), ("checkpoint", 0)])
def test_who_waits_for_a_hanging_rank_gives_up_in_time(
    launch: Launcher, straight: Path, tmp_path: Path, phase: str, rank: int
) -> None:
    failure = Failure("hang", phase, rank)
    folder = tmp_path / "run"
    ended = launch(folder, "--distributed-timeout", "1.5", failure=failure, grace_s=0.5)
    assert_lost(ended, 1 - rank)
    assert ended.statuses[rank] == -signal.SIGKILL  # by torchrun: it heeds no SIGTERM
    assert_goes_on(launch, folder, straight, failure)


@pytest.mark.slow
def test_a_disk_that_fills_during_a_checkpoint_leaves_the_one_before(
    launch: Launcher, straight: Path, tmp_path: Path
) -> None:
    failure = Failure("full disk", "checkpoint", rank=0)
    folder = tmp_path / "run"
    ended = launch(folder, failure=failure)
    full = (
        f"error: rank 0: the disk is full ({folder}/checkpoint_1_8.pt): free some space and run the same command again"
    )
    assert [line for line in ended.told[0].splitlines() if not line.startswith(NEWS)] == [full]
    assert ended.statuses[0] == 2
    assert_lost(ended, 1)
    assert updates_of(folder) == 4
    assert not list(folder.glob(".*"))
    assert_goes_on(launch, folder, straight, failure)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("phase", "rank", "updates", "saved", "options"),
    [
        ("data", 0, 5, 6, ()),
        ("data", 1, 5, 6, ()),
        ("data", 1, 10, 10, ("--bptt", "80", "--save-interval", "100")),  # the first batch of the second epoch
        ("data", 1, 0, None, ()),
        ("validation", 0, 8, 8, ()),
        ("validation", 1, 8, 8, ()),
    ],
)
def test_what_cannot_be_read_on_one_rank_ends_all_and_costs_no_update(
    launch: Launcher,
    straight: Path,
    tmp_path: Path,
    phase: str,
    rank: int,
    updates: int,
    saved: int | None,
    options: tuple[str, ...],
) -> None:
    failure = Failure("unreadable", phase, rank, updates)
    folder = tmp_path / "run"
    ended = launch(folder, *options, failure=failure, grace_s=10)
    own, other = (ended.told[each].splitlines()[-1] for each in (rank, 1 - rank))
    assert own == f"error: rank {rank}: picture 7 can't be read"
    assert other.startswith(f"error: rank {1 - rank}: another rank can't read what it needs, and says why")
    assert "Traceback" not in "".join(ended.told)
    assert not ended.orphans
    if saved is None:
        assert not list(folder.glob("*.pt"))
    else:
        assert updates_of(folder) == saved
    if not options:
        assert_goes_on(launch, folder, straight, failure)


def torchrun(
    launch: Launcher, folder: Path, failure: Failure, *options: str, more: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """Trains into `folder` under torchrun itself, with `options` of it."""
    script = Path(__file__).with_name("failing_runs.py")
    agent = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *options]
    given = [json.dumps(asdict(failure)), str(launch.data), "--save-dir", str(folder), *RUN]
    return subprocess.run(
        [*agent, str(script), *given],
        env={**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.mark.slow
def test_sigterm_to_torchrun_stops_all_with_a_checkpoint(launch: Launcher, straight: Path, tmp_path: Path) -> None:
    failure = Failure("SIGTERM", "forward", rank=1, to_agent=True)
    folder = tmp_path / "run"
    agent = torchrun(launch, folder, failure, "--max-restarts", "2")
    assert agent.returncode != 0
    stopped_at = updates_of(folder)
    assert f"stopped by SIGTERM to rank 0, 1 after update {stopped_at}, " in agent.stderr
    assert "forcefully" not in agent.stderr  # no rank had to be killed
    assert "going on" not in agent.stderr  # nor was one started again
    assert_goes_on(launch, folder, straight, failure)


@pytest.mark.slow
def test_torchrun_brings_back_a_run_whose_rank_was_killed(launch: Launcher, straight: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    agent = torchrun(launch, folder, Failure("SIGKILL", "data", rank=1, updates=7), "--max-restarts", "2")
    assert agent.returncode == 0, agent.stderr
    assert agent.stderr.count(f"going on from {folder / LAST}: update 4, ") == 1
    assert "find each other" not in agent.stderr
    assert "outlive" not in agent.stderr  # a thread of gloo's that is there at Python's end may abort it
    assert_same_weights(folder, straight)
