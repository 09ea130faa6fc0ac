"""Runs of the studies: stopped, gone on with, ended by patience."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import prepare
import pytest
from making import Places, make_run
from preloaded import preloaded
from record import is_finished
from studies import STUDIES
from study import Arm, Run
from summary import sides_of

ROOT = Path(__file__).resolve().parents[2]
(LANGUAGE,) = (study for study in STUDIES if study.name == "language-twentieth")
LINES = {"train": 400, "valid": 12, "test": 12}


def test_patience_ends_a_run_and_finishes_its_record(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fetch(script: str, to: Path, raw: Path | None, *options: str) -> None:
        to.mkdir(parents=True)
        for split in LINES:
            shutil.copyfile(toy / f"ptb.{split}.txt", to / f"{split}.txt")

    monkeypatch.setattr(prepare, "_fetch", fetch)
    places = Places(prepare.prepare("ptb-tenth", tmp_path, None), tmp_path / "runs", tmp_path / "results", cpu=True)
    sizes = ("--decoder-embed-dim", "8", "--decoder-hidden-size", "8")
    still = (*LANGUAGE.options, *sizes, "--lr", "1e-30")  # weights stay as they are: no validation is a new best
    study = replace(LANGUAGE, options=still, updates=9, validate_every=1, patience=2)
    run = Run(study, LANGUAGE.arms[0], seed=2)
    with capfd.disabled():  # a run writes what its commands print into files, and reads it there
        assert make_run(run, places) == 0
    record = json.loads((tmp_path / "results" / f"{run.name}.json").read_text(encoding="utf-8"))
    assert (record["updates"], record["of_updates"]) == (3, 9)
    assert is_finished(run, tmp_path / "results")
    (side,) = sides_of(study, [record])
    assert side.curve()[-1][0] == 3


@pytest.fixture
def toy(toy_text: Path, write_words) -> Path:
    for split, count in LINES.items():
        write_words(toy_text / f"ptb.{split}.txt", count)
    return toy_text


def evidence(toy: Path, out: Path, *names: str) -> list[str | Path]:
    """Arguments of evidence.sh for trial runs of the language model."""
    folders = ["--from", toy, "--out", out, "--results", out / "results"]
    return [*folders, "--only", ",".join(names), "--seeds", "1", "--updates", "4", "--jobs", "1", "--device", "cpu"]


@pytest.mark.slow
def test_a_stopped_study_goes_on_to_the_same_records(recipe, toy: Path, tmp_path: Path) -> None:
    out, name = tmp_path / "out", "language-twentieth.fixed-rows-4"
    process = subprocess.Popen(
        ["bash", ROOT / "recipes" / "evidence.sh", *evidence(toy, out, name)],
        env={**os.environ, "SEQBA_VENV": str(preloaded().folder)},
        stdout=subprocess.PIPE,
        text=True,
    )
    log, until = out / "runs" / f"{name}.1" / "log.jsonl", time.monotonic() + 300
    while not (log.exists() and '"train"' in log.read_text(encoding="utf-8")) and time.monotonic() < until:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    told, _ = process.communicate(timeout=120)
    record = out / "results" / f"{name}.1.json"
    stopped = json.loads(record.read_text(encoding="utf-8"))
    if process.returncode:  # else the run had come to its end before the signal came
        assert process.returncode == 124
        assert "stopped, the same command goes on" in told
        assert not stopped["finished"]
        assert stopped["scores"] == {}

    again = recipe("evidence.sh", *evidence(toy, out, name, "language-twentieth.baseline"))
    assert again.returncode == 0, again.stderr
    assert again.stdout.splitlines()[-1] == "2 of 2 runs are finished"
    assert is_finished(Run(LANGUAGE, Arm("baseline"), 1, 4), out / "results")
    baseline = json.loads((out / "results" / "language-twentieth.baseline.1.json").read_text(encoding="utf-8"))
    assert [row["copies"] for row in baseline["measured"]["advice"]["copies"]] == [1, 4, 10]
    whole = tmp_path / "whole"
    assert recipe("evidence.sh", *evidence(toy, whole, name)).returncode == 0
    resumed, never_stopped = (
        json.loads((folder / "results" / f"{name}.1.json").read_text(encoding="utf-8")) for folder in (out, whole)
    )
    assert resumed["updates"] == 4
    assert resumed["curves"]["valid"] == never_stopped["curves"]["valid"]
    assert resumed["scores"] == never_stopped["scores"]
    assert resumed["processed"] == never_stopped["processed"] == 4 * resumed["unique"]


def test_list_makes_nothing(recipe, tmp_path: Path) -> None:
    finished = recipe("evidence.sh", "--list", "yes", "--only", "images-5000", "--results", tmp_path / "none")
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.splitlines()[0].startswith("images-5000.baseline ")
    assert "runs to make" in finished.stdout.splitlines()[-1]
    assert not (tmp_path / "none").exists()


def test_a_reader_of_the_list_may_go_away(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = ["bash", ROOT / "recipes" / "evidence.sh", "--list", "yes", "--results", tmp_path]
    environment = {**os.environ, "SEQBA_VENV": str(preloaded().folder)}
    done = subprocess.run(command, env=environment, stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--jobs", "many"], "--jobs takes a whole number from 1 on, not 'many'"),
        (["--seeds", "1,x"], "--seeds takes whole numbers with commas, like 1,2,3, not '1,x'"),
        (["--device", "gpu"], "--device takes auto, cpu or cuda, not 'gpu'"),
        (["--list", "all"], "--list and --page take yes, not 'all'"),
        (["--only", "speech"], "--only speech names none of images-2500"),
    ],
)
def test_mistakes_are_one_line(recipe, arguments: list[str], complaint: str) -> None:
    finished = recipe("evidence.sh", *arguments)
    assert finished.returncode == 2
    assert finished.stderr.startswith(f"error: {complaint}")
    assert finished.stderr.count("\n") == 1
