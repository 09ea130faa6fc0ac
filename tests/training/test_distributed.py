"""seqba-train under torchrun: the same run on any number of ranks, with every noise, checkpoints included."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from alphabet import write_alphabet
from rank_runs import RUNS, train_all
from reversal import write_reversal
from toy_images import write_coloured_cifar

from seqba.training.checkpoint import read_checkpoint
from seqba.training.folder import LAST

UPDATES = 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data of all tasks, and for 1 to 4 ranks a run of each."""
    folder = tmp_path_factory.mktemp("ranks")
    write_reversal(folder / "reversal")
    write_alphabet(folder / "alphabet")
    write_coloured_cifar(folder / "pictures")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    train_all(folder, str(UPDATES), [], names=list(RUNS), save="1")
    torch.set_num_threads(threads)
    for ranks in (2, 3, 4):
        finished = torchrun(folder, ranks, str(ranks), UPDATES)
        assert finished.returncode == 0, finished.stderr
    return folder


def torchrun(
    folder: Path, ranks: int, save: str, updates: int, *options: str, names: str = ",".join(RUNS)
) -> subprocess.CompletedProcess[str]:
    script = Path(__file__).with_name("rank_runs.py")
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks), str(script)]
    return subprocess.run(
        [sys.executable, *command, str(folder), save, str(updates), names, *options],
        env={**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def state_of(folder: Path, save: str, name: str) -> dict[str, Any]:
    return read_checkpoint(folder / save / name / LAST)


def lines_of(folder: Path, save: str, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / save / f"{name}.jsonl").read_text().splitlines()]


def distance(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """‖one − other‖ / ‖one‖ over all weights and running statistics.

    Optimizers here are SGD: Adam divides the rounding of gradients that are zero by its own size.
    """
    assert one.keys() == other.keys()
    first, second = (torch.cat([state[name].double().flatten() for name in one]) for state in (one, other))
    return float((first - second).norm() / first.norm())


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("ranks", ["2", "3", "4"])
def test_weights_after_twenty_updates_are_those_of_one_process(folder: Path, ranks: str, name: str) -> None:
    assert distance(*(state_of(folder, save, name)["model"] for save in ("1", ranks))) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("ranks", ["2", "3", "4"])
def test_every_line_of_the_log_is_the_same_and_there_once(folder: Path, ranks: str, name: str) -> None:
    alone, several = (lines_of(folder, save, name) for save in ("1", ranks))
    assert [line["event"] for line in alone] == [line["event"] for line in several]
    numbers = ("loss", "nll", "ppl", "top1", "grad_norm", "lr", "update", "epoch")
    for one, other in zip(alone, several, strict=True):
        assert {key for key in one if "token" in key or "image" in key} == {
            key for key in other if "token" in key or "image" in key
        }
        for key in numbers:
            if key in one:
                assert other[key] == pytest.approx(one[key], rel=2e-5), key
        for key in one:
            if key.startswith(("unique", "processed")) and not key.endswith("per_s"):
                assert other[key] == one[key], key


@pytest.mark.slow
def test_the_carried_state_is_whole_in_every_checkpoint(folder: Path) -> None:
    alone = state_of(folder, "1", "awd_lstm")["extra_state"]["trainer"]["carried"]["shards"]
    for ranks in ("2", "3", "4"):
        several = state_of(folder, ranks, "awd_lstm")["extra_state"]["trainer"]["carried"]["shards"]
        for one, other in zip(alone[0], several[0], strict=True):
            torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_a_run_begun_on_four_ranks_goes_on_on_one_and_on_three(folder: Path) -> None:
    assert torchrun(folder, 4, "begun", 8).returncode == 0
    for ranks in (1, 3):
        for name in RUNS:
            target = folder / f"on-{ranks}" / name
            target.mkdir(parents=True)
            (target / LAST).write_bytes((folder / "begun" / name / LAST).read_bytes())
        finished = torchrun(folder, ranks, f"on-{ranks}", UPDATES)
        assert finished.returncode == 0, finished.stderr
        for name in RUNS:
            went_on = state_of(folder, f"on-{ranks}", name)["model"]
            assert distance(state_of(folder, "1", name)["model"], went_on) < 1e-5, (name, ranks)


@pytest.mark.slow
def test_more_ranks_than_cells_are_refused_with_the_numbers(folder: Path) -> None:
    finished = torchrun(folder, 3, "refused", 2, "--arm", "baseline", names="awd_lstm")
    assert finished.returncode != 0
    complaint = "3 ranks for 1 shards × 1 copies = 1 cells: take at most 1 ranks, or more shards or copies"
    told = [line for line in finished.stderr.splitlines() if line.startswith("error: rank ")]
    assert told
    assert all(line.endswith(f"{complaint} (--update-freq, --copies)") for line in told)
