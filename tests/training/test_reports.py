"""Reports to trackers: every number of the log, by its name; a tracker's failure is its own."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from preloaded import preloaded
from reversal import train_arguments
from small_runs import make_loop, make_options, make_record
from sums import SquaresTask

from seqba.core import ALONE, Group
from seqba.errors import UserError
from seqba.training import reports as module
from seqba.training.options import LogOptions
from seqba.training.options.log import TRACKERS
from seqba.training.reports import OPENERS, REPORTS_FILE, NewRun, open_trackers
from seqba.training.signals import StopSignal


@dataclass
class Recorder:
    """A tracker that keeps what it is told; one that is to fail raises at that call."""

    new: NewRun
    fails_at: str = ""
    values: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    closed: int = 0

    @property
    def identity(self) -> str:
        return self.new.identity or "first"

    def log(self, values: Mapping[str, float], update: int) -> None:
        if self.fails_at == "log":
            raise ConnectionError("the service is away\nand more of it")
        sys.stdout.write("printed by a tracker")
        self.values.append((update, dict(values)))

    def close(self) -> None:
        self.closed += 1
        if self.fails_at == "close":
            raise ConnectionError


@pytest.fixture
def recorders(monkeypatch: pytest.MonkeyPatch) -> dict[str, Recorder]:
    """Recorders in the place of all trackers, by name; as if their packages were installed."""
    opened: dict[str, Recorder] = {}

    def opener(name: str) -> Callable[[NewRun], Recorder]:
        def begin(new: NewRun) -> Recorder:
            opened[name] = Recorder(new)
            return opened[name]

        return begin

    monkeypatch.setattr(module, "needed", lambda *_: None)
    for name in OPENERS:
        monkeypatch.setitem(OPENERS, name, opener(name))
    return opened


def run(folder: Path, **changes: Any) -> None:
    loop = make_loop(make_options(folder, **{"report_to": "wandb", "max_update": 6, "log_interval": 2, **changes}))
    loop.run(StopSignal())
    loop.log.close()


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]


def test_a_tracker_gets_every_number_of_the_log_by_its_name(
    recorders: dict[str, Recorder], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tmp_path, report_project="letters")
    recorder = recorders["wandb"]
    assert recorder.values == [
        (
            line["update"],
            {
                f"{line.get('subset', 'train')}/{name}": value
                for name, value in line.items()
                if name != "update" and isinstance(value, (int, float))
            },
        )
        for line in lines(tmp_path)
    ]
    assert {"train/loss", "train/lr", "train/grad_norm"} <= recorder.values[0][1].keys()
    assert {"valid/loss", "valid/best"} <= recorder.values[-1][1].keys() | recorder.values[-2][1].keys()
    assert recorder.closed == 1
    assert (recorder.new.project, recorder.new.name) == ("letters", tmp_path.name)
    assert {"lr": 0.05, "copies": 2, "max_tokens": 9, "arch": "line"}.items() <= recorder.new.options.items()
    captured = capsys.readouterr()
    assert "printed by a tracker" in captured.err
    assert captured.out == ""


def test_a_resumed_run_goes_on_as_itself_and_a_new_one_begins_anew(
    recorders: dict[str, Recorder], tmp_path: Path
) -> None:
    run(tmp_path, report_to="wandb,mlflow", max_update=4)
    assert (recorders["wandb"].new.identity, recorders["mlflow"].new.identity) == (None, None)
    assert json.loads((tmp_path / REPORTS_FILE).read_text(encoding="utf-8")) == {"wandb": "first", "mlflow": "first"}
    run(tmp_path, report_to="mlflow", max_update=6)
    assert recorders["mlflow"].new.identity == "first"
    assert json.loads((tmp_path / REPORTS_FILE).read_text(encoding="utf-8")) == {"wandb": "first", "mlflow": "first"}
    for path in tmp_path.glob("*.pt"):
        path.unlink()
    run(tmp_path, report_to="mlflow", max_update=2)
    assert recorders["mlflow"].new.identity is None


@pytest.mark.parametrize("damage", ["", "[1]", '{"wandb": 3}'])
def test_a_damaged_file_of_names_begins_anew(damage: str, recorders: dict[str, Recorder], tmp_path: Path) -> None:
    run(tmp_path, max_update=4)
    (tmp_path / REPORTS_FILE).write_text(damage, encoding="utf-8")
    run(tmp_path)
    assert recorders["wandb"].new.identity is None


@pytest.mark.parametrize("fails_at", ["log", "close"])
def test_a_tracker_that_fails_is_told_of_once_and_the_others_go_on(
    fails_at: str,
    recorders: dict[str, Recorder],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(OPENERS, "wandb", lambda new: Recorder(new, fails_at))
    run(tmp_path, report_to="wandb,trackio")
    reason = {"log": "the service is away", "close": "ConnectionError"}[fails_at]
    told = [record.getMessage() for record in caplog.records if "wandb" in record.getMessage()]
    assert told == [f"wandb gets no more reports, and training goes on: {reason}"]
    assert len(recorders["trackio"].values) == len(lines(tmp_path))
    assert recorders["trackio"].closed == 1


def test_a_tracker_that_does_not_begin_is_told_of_too(
    recorders: dict[str, Recorder], tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(new: NewRun) -> Recorder:
        raise ConnectionError("no key")

    monkeypatch.setitem(OPENERS, "mlflow", away)
    run(tmp_path, report_to="mlflow,trackio")
    assert "mlflow gets no more reports, and training goes on: no key" in caplog.text
    assert recorders["trackio"].closed == 1


def test_nothing_is_kept_of_a_run_without_a_folder(recorders: dict[str, Recorder], tmp_path: Path) -> None:
    run(tmp_path, no_save=True)
    assert recorders["wandb"].values
    assert list(tmp_path.iterdir()) == []


def test_only_the_first_rank_reports(recorders: dict[str, Recorder], tmp_path: Path) -> None:
    record = make_record(make_options(tmp_path, report_to="wandb"), SquaresTask())
    open_trackers(record, cast(Group, SimpleNamespace(is_first=False)), resumed=False)
    assert not recorders
    open_trackers(record, ALONE, resumed=False)
    assert set(recorders) == {"wandb"}


def test_the_options_say_who_is_told() -> None:
    assert tuple(OPENERS) == TRACKERS
    assert LogOptions().trackers == ()
    assert LogOptions(report_to="mlflow,wandb,mlflow").trackers == ("mlflow", "wandb")
    assert LogOptions(wandb_project="mine").trackers == ("wandb",)
    assert LogOptions(report_to="wandb", wandb_project="mine").trackers == ("wandb",)
    with pytest.raises(UserError, match="--report-to is 'comet'; choose among: wandb, mlflow, trackio"):
        LogOptions(report_to="wandb,comet")
    with pytest.raises(UserError, match="TensorBoard's is --tensorboard-logdir"):
        LogOptions(report_to="tensorboard")


def test_fairseqs_option_names_the_project_of_wandb_alone(recorders: dict[str, Recorder], tmp_path: Path) -> None:
    run(tmp_path, report_to="trackio", wandb_project="mine")
    assert {name: recorder.new.project for name, recorder in recorders.items()} == {"trackio": "seqba", "wandb": "mine"}


def test_a_missing_package_is_one_line_before_any_update(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trackio", None)
    with pytest.raises(UserError, match=r"--report-to trackio needs a package .*pip install 'seqba\[trackio\]'"):
        run(tmp_path, report_to="trackio")
    assert not (tmp_path / "checkpoint_last.pt").exists()


def wandb_kept(folder: Path) -> dict[str, int]:
    """Lines that hold each name, by all of a run's files; wandb's own format has names and numbers in plain bytes."""
    files = sorted((folder / "wandb").glob("offline-run-*-*/run-*.wandb"))
    assert len({path.stem for path in files}) == 1
    data = b"".join(path.read_bytes() for path in files)
    return {name: data.count(name.encode()) for name in NAMES}


def mlflow_kept(folder: Path) -> dict[str, int]:
    (run_folder,) = (path for path in (folder / "mlruns").glob("*/*") if (path / "metrics").is_dir())
    assert (run_folder / "params" / "copies").read_text(encoding="utf-8") == "2"
    return {name: len((run_folder / "metrics" / name).read_text().splitlines()) for name in NAMES}


def trackio_kept(folder: Path) -> dict[str, int]:
    (path,) = (folder / "trackio").glob("*.db")
    database = sqlite3.connect(path)
    rows = [json.loads(text) for (text,) in database.execute("SELECT metrics FROM metrics")]
    assert len(set(database.execute("SELECT run_name FROM metrics"))) == 1
    database.close()
    return {name: sum(name in row for row in rows) for name in NAMES}


NAMES = ("train/loss", "train/lr", "valid/ppl")
KEPT = {"wandb": wandb_kept, "mlflow": mlflow_kept, "trackio": trackio_kept}


@pytest.mark.slow
@pytest.mark.parametrize("tracker", TRACKERS)
def test_the_package_itself_keeps_a_run_that_was_resumed(tracker: str, reversal: Path, tmp_path: Path) -> None:
    if find_spec(tracker) is None:
        pytest.skip(f"{tracker} isn't installed")
    settings = {
        "WANDB_MODE": "offline",
        "WANDB_SILENT": "true",
        "MLFLOW_TRACKING_URI": (tmp_path / "mlruns").as_uri(),
        "MLFLOW_ALLOW_FILE_STORE": "true",
        "TRACKIO_DIR": str(tmp_path / "trackio"),
        "HF_HUB_OFFLINE": "1",
    }
    code = "import sys; from seqba.cli.train import entry; sys.argv[0] = 'seqba-train'; entry()"
    arguments = train_arguments(reversal, tmp_path / "run", "--report-to", tracker, "--log-interval", "2")
    printed = ""
    for end in ("2", "6"):
        finished = subprocess.run(
            [preloaded().python, "-c", code, *arguments, "--max-update", end],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**os.environ, **settings},
            timeout=280,
            check=False,
        )
        assert finished.returncode == 0, finished.stderr
        assert "gets no more reports" not in finished.stderr
        printed += finished.stdout
    told = [json.loads(line) for line in printed.splitlines()]  # nothing else stands on stdout
    assert told == lines(tmp_path / "run")
    kept = KEPT[tracker](tmp_path)
    assert kept["train/loss"] >= 3
    assert kept["train/lr"] >= 3
    assert kept["valid/ppl"] >= 2
