"""seqba-train under torchrun: the same run on any number of ranks, with every noise, checkpoints included."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from alphabet import write_alphabet
from broadcast_world import COPIES, SIZE, UPDATES
from broadcast_world import run_all as read_all
from preloaded import preloaded
from rank_runs import ARM_RUNS, RUNS, train_all
from reversal import write_reversal
from syllables import write_syllables
from toy_images import write_coloured_cifar

from seqba.checkpoints.file import read_checkpoint
from seqba.core import ALONE
from seqba.distributed import Ranks
from seqba.errors import UserError
from seqba.training.arms import GridShape, check_ranks
from seqba.training.folder import LAST
from seqba.training.options import RunOptions
from seqba.training.options.grid import CopySchedule

MADE = 13
"""Updates of a run: the last one is the first of the Transformer's third epoch."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data of all tasks, and for 1, 3 and 4 ranks a run of each."""
    folder = tmp_path_factory.mktemp("ranks")
    write_reversal(folder / "reversal")
    write_alphabet(folder / "alphabet")
    write_coloured_cifar(folder / "pictures")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    train_all(folder, str(MADE), [], names=list(RUNS), save="1")
    torch.set_num_threads(threads)
    for ranks in (3, 4):
        finished = torchrun(folder, ranks, str(ranks), MADE)
        assert finished.returncode == 0, finished.stderr
    return folder


@pytest.fixture(scope="module")
def reading(tmp_path_factory: pytest.TempPathFactory) -> list[list[dict[str, Any]]]:
    """What each rank read and got in each update, where one reads for all."""
    return read_all(tmp_path_factory.mktemp("reading"))


def torchrun(
    folder: Path, ranks: int, save: str, updates: int, *options: str, names: str = ",".join(RUNS)
) -> subprocess.CompletedProcess[str]:
    script = Path(__file__).with_name("rank_runs.py")
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks), str(script)]
    return subprocess.run(
        [preloaded().python, *command, str(folder), save, str(updates), names, *options],
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


def check_same_lines(alone: list[dict[str, Any]], several: list[dict[str, Any]]) -> None:
    """Of two runs: numbers to rounding, counts exactly."""
    assert [line["event"] for line in alone] == [line["event"] for line in several]
    numbers = ("loss", "nll", "ppl", "top1", "bleu", "grad_norm", "lr", "update", "epoch")
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


def distance(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """‖one − other‖ / ‖one‖ over all weights and running statistics.

    Optimizers here are SGD: Adam divides the rounding of gradients that are zero by its own size.
    """
    assert one.keys() == other.keys()
    first, second = (torch.cat([state[name].double().flatten() for name in one]) for state in (one, other))
    return float((first - second).norm() / first.norm())


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("ranks", ["3", "4"])
def test_weights_after_some_updates_are_those_of_one_process(folder: Path, ranks: str, name: str) -> None:
    assert distance(*(state_of(folder, save, name)["model"] for save in ("1", ranks))) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("ranks", ["3", "4"])
def test_every_line_of_the_log_is_the_same_and_there_once(folder: Path, ranks: str, name: str) -> None:
    check_same_lines(*(lines_of(folder, save, name) for save in ("1", ranks)))


@pytest.mark.slow
def test_the_carried_state_is_whole_in_every_checkpoint(folder: Path) -> None:
    alone = state_of(folder, "1", "awd_lstm")["extra_state"]["trainer"]["carried"]["shards"]
    for ranks in ("3", "4"):
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
        finished = torchrun(folder, ranks, f"on-{ranks}", MADE)
        assert finished.returncode == 0, finished.stderr
        for name in RUNS:
            went_on = state_of(folder, f"on-{ranks}", name)["model"]
            assert distance(state_of(folder, "1", name)["model"], went_on) < 1e-5, (name, ranks)


@pytest.mark.slow
def test_the_further_arms_are_those_of_one_process_too(folder: Path) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    train_all(folder, "6", [], names=list(ARM_RUNS), save="arms alone")
    torch.set_num_threads(threads)
    finished = torchrun(folder, 3, "arms", 6, names=",".join(ARM_RUNS))
    assert finished.returncode == 0, finished.stderr
    for name in ARM_RUNS:
        assert distance(*(state_of(folder, save, name)["model"] for save in ("arms alone", "arms"))) < 1e-5, name


@pytest.mark.slow
def test_copies_with_tokens_of_their_own_are_the_same_on_three_ranks(tmp_path: Path) -> None:
    write_syllables(tmp_path / "syllables")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    train_all(tmp_path, "4", [], names=["subwords"], save="1")
    torch.set_num_threads(threads)
    finished = torchrun(tmp_path, 3, "3", 4, names="subwords")
    assert finished.returncode == 0, finished.stderr
    assert distance(*(state_of(tmp_path, save, "subwords")["model"] for save in ("1", "3"))) < 1e-5
    one, other = lines_of(tmp_path, "1", "subwords"), lines_of(tmp_path, "3", "subwords")
    for count in ("unique_tokens", "processed_tokens"):
        assert [line[count] for line in one] == [line[count] for line in other]


@pytest.mark.slow
def test_more_ranks_than_cells_are_refused_with_the_numbers(folder: Path) -> None:
    finished = torchrun(folder, 3, "refused", 2, "--arm", "baseline", names="awd_lstm")
    assert finished.returncode != 0
    complaint = (
        "3 ranks for 1 micro-batches × 1 copies = 1 cells: take at most 1 ranks, or more micro-batches or copies"
    )
    told = [line for line in finished.stderr.splitlines() if line.startswith("error: rank ")]
    assert told
    assert all(line.endswith(f"{complaint} (--update-freq, --copies)") for line in told)


@pytest.mark.slow
def test_batches_that_one_rank_reads_for_all_make_the_same_weights(folder: Path) -> None:
    finished = torchrun(folder, 3, "broadcast", MADE, "--broadcast-batches")
    assert finished.returncode == 0, finished.stderr
    for name in RUNS:
        assert distance(*(state_of(folder, save, name)["model"] for save in ("3", "broadcast"))) == 0


@pytest.mark.slow
def test_every_batch_is_read_once_and_reaches_all_ranks_that_have_copies_of_it(
    reading: list[list[dict[str, Any]]],
) -> None:
    for update, micro_batches in enumerate(UPDATES):
        results = [results[update] for results in reading]
        assert sorted(number for result in results for number in result["read"]) == list(range(micro_batches))
        for rank, result in enumerate(results):
            own = [micro_batch for micro_batch, _ in Ranks(rank, SIZE).cells(micro_batches, COPIES)]
            first = 1000 * update
            expected = {n: ([first + n, first + n + 1, first + n + 2], f"{update}-{n}") for n in own}
            assert result["got"] == expected
            assert result["held"] == 24  # three numbers, not the million that they are a view of


@pytest.mark.slow
def test_a_batch_that_cannot_be_read_ends_all_that_wait_for_it(reading: list[list[dict[str, Any]]]) -> None:
    broken = [results[-1] for results in reading]
    assert [result["error"] for result in broken] == ["micro-batch 0 is broken"] * SIZE
    assert [result["read"] for result in broken] == [[0], [], []]


def test_a_reader_for_all_is_refused_where_there_is_one_process() -> None:
    with pytest.raises(UserError, match="--broadcast-batches is for several processes: start them with torchrun"):
        check_ranks(ALONE, GridShape((1,), CopySchedule((4,))), RunOptions(broadcast_batches=True))


def test_measuring_is_refused_where_cells_are_on_several_ranks() -> None:
    check_ranks(ALONE, GridShape((1,), CopySchedule((4,))), RunOptions(), measure_every=50)
    with pytest.raises(UserError, match="--measure-every needs all cells of an update in one process"):
        check_ranks(Ranks(0, 2), GridShape((1,), CopySchedule((4,))), RunOptions(), measure_every=50)


@pytest.mark.slow
def test_a_signal_to_one_rank_stops_all_after_the_same_update(folder: Path) -> None:
    script = Path(__file__).with_name("rank_runs.py")
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    agent = subprocess.Popen(
        [sys.executable, *command, str(folder), "stopped", "100000", "awd_lstm"],
        env={**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    log = folder / "stopped" / "awd_lstm.jsonl"
    try:
        wait_for(lambda: log.exists() and log.read_text().count("train") >= 3)
        children = Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text().split()
        assert len(children) == 2
        os.kill(int(children[1]), signal.SIGTERM)  # not the rank that writes
        assert agent.wait(timeout=120) != 0
    finally:
        agent.kill()
    wait_for(lambda: not any(Path(f"/proc/{child}").exists() for child in children))
    stopped_at = state_of(folder, "stopped", "awd_lstm")["extra_state"]["trainer"]["updates"]
    assert stopped_at == lines_of(folder, "stopped", "awd_lstm")[-1]["update"]
    assert stopped_at >= 3


@pytest.mark.slow
@pytest.mark.parametrize("loss", [signal.SIGKILL, signal.SIGSTOP])
def test_who_loses_a_rank_says_so_in_one_line_and_keeps_the_last_checkpoint(
    folder: Path, tmp_path: Path, loss: signal.Signals
) -> None:
    lose_a_rank(folder, "awd_lstm", tmp_path, loss, "--log-interval", "1")


def lose_a_rank(folder: Path, name: str, save_dir: Path, loss: signal.Signals, *more: str) -> None:
    """Sends a signal to the second of two ranks once there is a checkpoint, and looks at what the first one says."""
    data, *options = RUNS[name]
    start = "import sys; from seqba.cli.train import entry; sys.exit(entry())"
    python = sys.executable if loss == signal.SIGSTOP else preloaded().python  # which can't be stopped
    command = [python, "-c", start, str(folder / data), *options, "--cpu", *more]
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    ranks = []
    for rank in range(2):
        where = {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
        ranks.append(
            subprocess.Popen(
                [*command, "--save-dir", str(save_dir), "--save-interval-updates", "1", "--distributed-timeout", "10"],
                env={**os.environ, **where, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    try:
        wait_for(lambda: (save_dir / LAST).exists())
        ranks[1].send_signal(loss)
        _, told = ranks[0].communicate(timeout=100)
    finally:
        for process in ranks:
            process.kill()
            process.communicate()
    assert ranks[0].returncode == 2
    assert "Traceback" not in told
    assert told.splitlines()[-1].startswith("error: rank 0: another rank has ended, or gave no answer within")
    assert read_checkpoint(save_dir / LAST)["extra_state"]["trainer"]["updates"] >= 1


def wait_for(condition: Callable[[], bool], seconds: float = 120) -> None:
    """Waits until it holds.

    Raises:
        TimeoutError: if it doesn't in time.
    """
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.1)
