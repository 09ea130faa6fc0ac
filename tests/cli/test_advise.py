"""seqba-advise: a measured split and timed updates → how many copies pay."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import last_complaint
from measured_runs import FEW

from seqba.checkpoints.file import read_checkpoint, write_checkpoint
from seqba.cli.advise import main as advise
from seqba.cli.command import run
from seqba.cli.measure import main as measure
from seqba.models import graphs
from seqba.nn.kernels.casts import shared_cast
from seqba.tasks.language_modeling import LanguageModeling


def test_updates_are_timed_and_advised_on(measured: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "advice.json"
    before = read_checkpoint(json.loads(measured.read_text())["path"])["model"]
    assert run(advise, [str(measured), "--cpu", "--copies", "2,4", "--timed-updates", "2", "--json", str(file)]) == 0
    printed = capsys.readouterr().out
    told = json.loads(file.read_text())
    assert [row["copies"] for row in told["copies"]] == [1, 2, 4]
    assert set(told["costs"]) == {"stacked", "looped"}
    assert all(seconds > 0 for seconds in told["costs"]["looped"]["seconds_per_update"].values())
    assert told["batch_examples"] == pytest.approx(2 * 60 / 12, rel=0.2)  # --update-freq × --max-tokens / block
    assert told["advice"][-1] in printed
    after = read_checkpoint(json.loads(measured.read_text())["path"])["model"]
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_timed_updates_are_those_of_the_training(
    precision: str, measured: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = read_checkpoint(json.loads(measured.read_text())["path"])
    state["cfg"]["training"]["optimisation"][precision] = True
    state["cfg"]["training"]["run"]["checkpoint_activations"] = True
    write_checkpoint(tmp_path / "other.pt", state)
    seen = []

    def loss(task: LanguageModeling, model: Any, batch: Any) -> Any:
        is_shared = shared_cast(model.output_weight, torch.bfloat16) is not None
        seen.append((model.layers[0].recomputes, is_shared, torch.is_autocast_enabled("cpu")))
        return real(task, model, batch)

    real = LanguageModeling.loss
    monkeypatch.setattr(LanguageModeling, "loss", loss)
    arguments = ["--path", str(tmp_path / "other.pt"), "--cpu", "--copies", "2", "--timed-updates", "1"]
    assert run(advise, [str(measured), *arguments]) == 0
    assert set(seen) == {(True, True, True)}


def test_a_machine_that_cant_compile_is_told_where_the_training_did(
    measured: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    state = read_checkpoint(json.loads(measured.read_text())["path"])
    state["cfg"]["training"]["run"]["compile"] = True
    write_checkpoint(tmp_path / "compiled.pt", state)

    def refuse(*_: Any, **__: Any) -> Any:
        raise RuntimeError("No working C++ compiler found")

    monkeypatch.setattr(torch, "compile", refuse)
    graphs._compiled.cache_clear()
    status = run(advise, [str(measured), "--path", str(tmp_path / "compiled.pt"), "--cpu", "--copies", "2"])
    assert "--compile: torch can't compile for this machine's cpu" in last_complaint(capsys, status)


def test_updates_that_fork_are_timed_beside_whole_copies(
    measured: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "advice.json"
    arguments = ["--copies", "2", "--timed-updates", "1", "--fork", "layer-1", "--noise-above", "0.75"]
    assert run(advise, [str(measured), "--cpu", *arguments, "--json", str(file)]) == 0
    assert "average 75% of the noise" in capsys.readouterr().out
    costs = json.loads(file.read_text())["costs"]
    assert {name: costs[name]["noise_above"] for name in costs} == {
        "stacked": 1.0,
        "looped": 1.0,
        "stacked, layer-1": 0.75,
        "looped, layer-1": 0.75,
    }


def test_the_noise_above_a_fork_is_measured_and_advised_by(
    alphabet: Path, blocks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, advice = tmp_path / "split.json", tmp_path / "advice.json"
    arguments = [str(alphabet), "--path", str(blocks), *FEW, "--fork", "layer-1", "--json", str(file)]
    assert run(measure, arguments) == 0
    told = json.loads(file.read_text())
    share = told["noise_above"]["value"]
    assert told["fork"] == "layer-1"
    assert 0.2 < share < 1
    assert f"share of S_w above --fork layer-1            {share:.4g} ± " in capsys.readouterr().out
    timed = [str(file), "--cpu", "--copies", "2", "--timed-updates", "1", "--fork", "layer-1"]
    assert run(advise, [*timed, "--json", str(advice)]) == 0
    assert json.loads(advice.read_text())["costs"]["looped, layer-1"]["noise_above"] == share


def test_a_file_of_options_names_both_what_is_read_and_what_is_written(measured: Path, tmp_path: Path) -> None:
    (tmp_path / "advise.toml").write_text(
        f"measured = '{measured}'\njson = '{tmp_path / 'advice.json'}'\ntimes = '1:1,2:2'\nbatch-examples = 10\n",
        encoding="utf-8",
    )
    assert run(advise, ["--config", str(tmp_path / "advise.toml")]) == 0
    assert json.loads((tmp_path / "advice.json").read_text())["measured"] == str(measured)


def test_times_may_be_given_instead(measured: Path, capsys: pytest.CaptureFixture[str]) -> None:
    times = ["--times", "1:1.0,2:1.01,4:1.02", "--batch-examples", "1"]
    assert run(advise, [str(measured), *times, "--copies", "2,4"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("An update of 1 examples;")
    assert " 1.02 " in printed
    assert "On this device" in printed


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--times", "1:2"], "--times needs --batch-examples"),
        (["--times", "1:2", "--batch-examples", "3", "--path", "x"], "--path is for timing"),
        (["--times", "half", "--batch-examples", "3"], "write it like 1:0.52,4:1.9"),
        (["--times", "2:1", "--batch-examples", "3"], "no time of an update at M = 1"),
        (["--times", "1:-1", "--batch-examples", "3"], "times must be positive"),
        (["--copies", "0"], "--copies is 0"),
        (
            ["--fork", "layer-1"],
            "doesn't say which share of the noise is above --fork layer-1: measure with seqba-measure --fork",
        ),
        (["--noise-above", "0.5"], "--noise-above belongs to --fork"),
        (["--fork", "encoder", "--noise-above", "0.5"], "--fork encoder has no place in"),
        (
            ["--times", "1:2", "--batch-examples", "3", "--fork", "layer-1", "--noise-above", "0.5"],
            "--fork is for timing",
        ),
        (["--json", "no/such/folder/advice.json"], "can't be written: there is no folder no/such/folder"),
        (["--update-freq", "1000"], "micro-batches, not the 1000 of an update"),
    ],
)
def test_what_can_not_be_advised_on_is_refused(
    more: list[str], message: str, measured: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in last_complaint(capsys, run(advise, [str(measured), "--cpu", *more]))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"split": {"signal": 1}}', "not json", '{"split": null}'])
def test_a_file_that_is_no_measurement_is_refused(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file.json").write_text(text, encoding="utf-8")
    status = run(advise, [str(tmp_path / "file.json")])
    assert "is not what seqba-measure --json writes" in last_complaint(capsys, status)
    status = run(advise, [str(tmp_path / "nowhere.json")])
    assert "write one with seqba-measure --json" in last_complaint(capsys, status)


@pytest.mark.filterwarnings("default")
def test_what_the_library_warns_of_is_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As of copies that nothing makes different: without a path and a line of the code."""
    monkeypatch.setattr("seqba.cli.jobs.advise.print_advice", lambda *_: warnings.warn("no noise", stacklevel=1))
    assert run(advise, ["split.json"]) == 0
    assert capsys.readouterr().err == "warning: no noise\n"


def test_advice_without_a_checkpoint_asks_for_one(
    measured: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told: dict[str, Any] = json.loads(measured.read_text())
    del told["path"]
    (tmp_path / "split.json").write_text(json.dumps(told), encoding="utf-8")
    status = run(advise, [str(tmp_path / "split.json")])
    assert "names no checkpoint and data: give --path and --data, or --times" in last_complaint(capsys, status)
