"""What a command writes to is looked at before anything is read, and a command that is refused leaves nothing there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from seqba.cli.advise import main as advise
from seqba.cli.average_checkpoints import main as average
from seqba.cli.command import run
from seqba.cli.export import main as export
from seqba.cli.generate import main as generate
from seqba.cli.measure import main as measure
from seqba.cli.plot import main as plot
from seqba.cli.preprocess import main as preprocess
from seqba.cli.train import main as train

TRAIN = ["none", "--arch", "transformer_tiny", "--lr", "0.1", "--max-tokens", "99", "--max-update", "1", "--cpu"]
SAVED = [*TRAIN, "--save-dir", "new/run"]
PREPROCESS = ["--only-source", "-s", "en", "--trainpref", "none"]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder: a file and folders where files should be, and none of the inputs."""
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("kept")
    for name in ("folder", "folder.svg", "logged"):
        Path(name).mkdir()
    Path("logged", "log.jsonl").write_text("notes of another kind\n")
    return tmp_path


def contents(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


@pytest.mark.parametrize(
    ("main", "arguments", "told"),
    [
        (measure, ["none", "--path", "none.pt", "--json", "folder"], "--json folder can't be written: it is a folder"),
        (measure, ["none", "--path", "none.pt", "--plot", "folder.svg"], "folder.svg can't be written: it is a folder"),
        (advise, ["none.json", "--json", "folder"], "--json folder can't be written: it is a folder"),
        (plot, ["none.jsonl", "--output", "folder.svg"], "folder.svg can't be written: it is a folder"),
        (average, ["--inputs", "none.pt", "--output", "folder"], "--output folder can't be written: it is a folder"),
        (export, ["none.pt", "--to", "fairseq", "-o", "folder"], "--output folder can't be written: it is a folder"),
        (
            export,
            ["none.pt", "--to", "transformers", "--data", "none", "-o", "file"],
            "--output file can't be written to: it is no folder",
        ),
        (
            generate,
            ["none", "--path", "none.pt", "--results-path", "file/results"],
            "--results-path file/results can't be written to",
        ),
        (preprocess, [*PREPROCESS, "--destdir", "file"], "--destdir file can't be written to: it is no folder"),
        (train, [*TRAIN, "--save-dir", "file"], "--save-dir file can't be written to: it is no folder"),
        (train, [*TRAIN, "--save-dir", "logged"], "log.jsonl is not the log of a run"),
        (train, [*SAVED, "--log-file", "folder"], "--log-file folder can't be written to: it is a folder"),
        (train, [*SAVED, "--log-file", "file/log"], "--log-file file/log can't be written to"),
    ],
)
def test_an_output_is_looked_at_before_what_is_read(
    main: Callable[[list[str]], int],
    arguments: list[str],
    told: str,
    place: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = contents(place)
    status = run(main, arguments)
    complaint = capsys.readouterr().err.splitlines()[-1]
    assert (status, told in complaint) == (2, True), complaint
    assert contents(place) == before


@pytest.mark.parametrize(
    ("main", "arguments"),
    [
        (measure, ["none", "--path", "none.pt", "--json", "split.json", "--plot", "worth.svg"]),
        (advise, ["none.json", "--json", "advice.json"]),
        (plot, ["none.jsonl"]),
        (average, ["--inputs", "none.pt", "--output", "mean.pt"]),
        (export, ["none.pt", "--to", "safetensors", "-o", "weights"]),
        (export, ["none.pt", "--to", "transformers", "--data", "none", "-o", "new/marian"]),
        (generate, ["none", "--path", "none.pt", "--results-path", "new/results"]),
        (preprocess, [*PREPROCESS, "--destdir", "new/bin"]),
        (train, [*SAVED, "--log-file", "logs/run.jsonl"]),
    ],
)
def test_a_refused_command_leaves_nothing_at_its_outputs(
    main: Callable[[list[str]], int], arguments: list[str], place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(place)
    assert run(main, arguments) == 2
    assert "none" in capsys.readouterr().err.splitlines()[-1]
    assert contents(place) == before


def test_a_folder_of_tensorboard_is_looked_at_before_what_is_read(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("seqba.training.rules.validation.needed", lambda *_: None)
    before = contents(place)
    assert run(train, [*SAVED, "--tensorboard-logdir", "file"]) == 2
    assert "--tensorboard-logdir file can't be written to: it is no folder" in capsys.readouterr().err
    assert contents(place) == before


def test_a_log_that_is_there_is_left_as_it_is_where_a_run_is_refused(place: Path) -> None:
    line = json.dumps({"event": "train", "update": 7}) + "\n"
    (place / "logged" / "log.jsonl").write_text(line + line[:10])
    assert run(train, [*TRAIN, "--save-dir", "logged"]) == 2
    assert (place / "logged" / "log.jsonl").read_text() == line + line[:10]
