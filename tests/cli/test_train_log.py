"""The log that a run keeps in its save-dir, from the command line."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from preloaded import preloaded
from reversal import train_arguments

from seqba.cli.train import main
from seqba.training import run
from seqba.training.log_file import RUN_LOG

pytestmark = pytest.mark.usefixtures("one_thread")
TIMES = ("seconds_per_update", "eta_s", "memory_mb", "unique_tokens_per_s", "processed_tokens_per_s")


def lines(folder: Path) -> list[dict[str, Any]]:
    """The log without what depends on the clock."""
    found = [json.loads(line) for line in (folder / RUN_LOG).read_text(encoding="utf-8").splitlines()]
    return [{name: value for name, value in line.items() if name not in TIMES} for line in found]


def test_every_format_leaves_the_same_lines(reversal: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = []
    for form in ("none", "simple", "tqdm", "json"):
        assert main(train_arguments(reversal, tmp_path / form, "--max-update", "6", "--log-format", form)) == 0
        made.append(lines(tmp_path / form))
        printed = capsys.readouterr().out
    assert made[0] == made[1] == made[2] == made[3]
    assert (tmp_path / "json" / RUN_LOG).read_text(encoding="utf-8") == printed
    assert [(line["event"], line["update"]) for line in made[0]] == [("train", 5), ("valid", 6), ("train", 6)]


def test_the_last_message_comes_after_the_numbers_of_the_last_update(
    reversal: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a terminal, to which both go; updates since the last interval have their line at the end."""
    told: dict[str, list[Any]] = {}
    monkeypatch.setattr(run.logger, "info", lambda line, *values: told.update({line % values: lines(tmp_path)}))
    assert main(train_arguments(reversal, tmp_path, "--max-update", "6", "--log-format", "json")) == 0
    assert list(told)[-1] == "done after update 6: --max-update 6"
    assert told["done after update 6: --max-update 6"] == lines(tmp_path)


def test_the_variance_is_logged_from_measured_updates_and_a_run_that_goes_on_logs_the_same(
    reversal: Path, tmp_path: Path
) -> None:
    more = ("--copies", "2", "--update-freq", "2", "--measure-every", "2", "--save-interval-updates", "5")
    for name, updates in (("straight", "10"), ("twice", "5"), ("twice", "10")):
        assert main(train_arguments(reversal, tmp_path / name, *more, "--max-update", updates)) == 0
    assert lines(tmp_path / "twice") == lines(tmp_path / "straight")
    train = [line for line in lines(tmp_path / "straight") if line["event"] == "train"]
    assert [line["update"] for line in train] == [5, 10]
    for line in train:
        assert line["variance_noise"] > 0
        assert line["variance_total"] == pytest.approx(line["variance_between"] + line["variance_noise"], rel=1e-4)
        assert line["grad_norm_sq"] >= line["grad_norm"] ** 2


def test_nothing_is_kept_without_saving(reversal: Path, tmp_path: Path) -> None:
    assert main(train_arguments(reversal, tmp_path / "run", "--max-update", "1", "--no-save")) == 0
    assert not (tmp_path / "run").exists()


def test_named_as_the_log_file_too_it_is_written_once(reversal: Path, tmp_path: Path) -> None:
    own = str(tmp_path / RUN_LOG)
    assert main(train_arguments(reversal, tmp_path, "--max-update", "6", "--log-file", own)) == 0
    assert [(line["event"], line["update"]) for line in lines(tmp_path)] == [("train", 5), ("valid", 6), ("train", 6)]


def test_a_run_that_goes_on_replaces_what_it_makes_again(reversal: Path, tmp_path: Path) -> None:
    def train(name: str, updates: int) -> None:
        every = ("--save-interval-updates", "10", "--max-update", str(updates))
        assert main(train_arguments(reversal, tmp_path / name, *every)) == 0

    train("straight", 20)
    train("killed", 10)
    at_ten = lines(tmp_path / "killed")
    with open(tmp_path / "killed" / RUN_LOG, "a", encoding="utf-8") as file:  # as if it had come to 17 before the kill
        file.write('{"event": "train", "update": 15, "loss": 7.0}\n{"event": "valid", "update": 16}\n{"event": "tr')
    train("killed", 20)
    assert lines(tmp_path / "killed")[: len(at_ten)] == at_ten
    assert lines(tmp_path / "killed") == lines(tmp_path / "straight")
    train("killed", 20)  # nothing is left to do
    assert lines(tmp_path / "killed") == lines(tmp_path / "straight")


def test_a_new_run_begins_a_new_log(reversal: Path, tmp_path: Path) -> None:
    (tmp_path / RUN_LOG).write_text('{"event": "train", "update": 5}\n', encoding="utf-8")  # killed before it saved
    assert main(train_arguments(reversal, tmp_path, "--max-update", "6")) == 0
    assert [line["update"] for line in lines(tmp_path)] == [5, 6, 6]
    assert "loss" in lines(tmp_path)[0]


@pytest.mark.slow
def test_killed_at_any_moment_no_update_is_told_twice(reversal: Path, tmp_path: Path) -> None:
    more = ["--save-interval-updates", "7", "--log-format", "none", "--log-interval", "1"]
    code = "import sys; from seqba.cli.train import entry; sys.argv[0] = 'seqba-train'; entry()"
    log = tmp_path / "killed" / RUN_LOG
    for update in (10, 40):
        process = subprocess.Popen(
            [preloaded().python, "-c", code, *train_arguments(reversal, tmp_path / "killed", *more)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        while not log.exists() or f'"update": {update}' not in log.read_text(encoding="utf-8"):
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
        process.communicate()
    for name in ("killed", "straight"):
        assert main(train_arguments(reversal, tmp_path / name, *more, "--max-update", "60")) == 0
    assert lines(tmp_path / "killed") == lines(tmp_path / "straight")
