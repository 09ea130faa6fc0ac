from __future__ import annotations

import io
import json
import logging
import math
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from update_reports import report

from seqba.errors import UserError
from seqba.statistics import CellSplit
from seqba.tasks import Unit
from seqba.training.log import TrainingLog
from seqba.training.options import LogOptions
from seqba.training.progress import Progress

CPU = torch.device("cpu")


def lines(text: str) -> list[dict[str, Any]]:
    def no_constants(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    return [json.loads(line, parse_constant=no_constants) for line in text.splitlines()]


def test_json_lines_have_the_promised_fields(capsys: pytest.CaptureFixture[str]) -> None:
    log = TrainingLog(LogOptions(log_format="json", log_interval=2), CPU, max_update=10)
    progress = Progress(epoch=3, unique=10, processed=20)
    log.update(report(1, 2.0, weight=30.0, grad_norm=1.0, clipped=True), progress, 0, seconds=0.5)
    log.update(report(2, 4.0), progress, 7, seconds=1.5)
    (line,) = lines(capsys.readouterr().out)
    memory = line.pop("memory_mb")
    assert memory > 10
    assert line == {
        "event": "train",
        "epoch": 3,
        "update": 2,
        "lr": 0.1,
        "loss": 2.5,  # (30 · 2 + 10 · 4) / 40
        "nll": 1.5,  # per token: (10 · 1 + 10 · 2) / 20
        "ppl": pytest.approx(math.exp(1.5), rel=1e-5),
        "grad_norm": 2.0,
        "grad_norm_sq": 5.0,  # (1 + 9) / 2
        "clip_rate": 0.5,
        "unit": "nats",
        "copies": 2,
        "unique_tokens": 10,
        "processed_tokens": 20,
        "unique_tokens_per_s": 5.0,
        "processed_tokens_per_s": 10.0,
        "seconds_per_update": 1.0,
        "eta_s": 8.0,
        "skipped": 7,
    }


def test_parts_of_the_variance_are_means_over_the_updates_that_were_measured(
    capsys: pytest.CaptureFixture[str],
) -> None:
    log = TrainingLog(LogOptions(log_format="json", log_interval=3), CPU)
    splits = [CellSplit(1.0, -1.0, 2.0, 1.0), None, CellSplit(None, None, 4.0, None)]
    for update, split in enumerate(splits, start=1):
        log.update(report(update, split=split), Progress(), 0, seconds=0.5)
    log.update(report(4), Progress(), 0, seconds=0.5)
    log.close()
    measured, unmeasured = lines(capsys.readouterr().out)
    names = ("signal", "variance_between", "variance_noise", "variance_total")
    assert [measured[name] for name in names] == [1.0, -1.0, 3.0, 1.0]
    assert not set(names) & set(unmeasured)


def test_the_last_line_tells_the_epoch_of_its_update(capsys: pytest.CaptureFixture[str]) -> None:
    log = TrainingLog(LogOptions(log_format="json"), CPU)
    progress = Progress(epoch=3)
    log.update(report(1), progress, 0, seconds=0.5)
    progress.next_epoch()
    log.close()
    (line,) = lines(capsys.readouterr().out)
    assert (line["epoch"], line["update"]) == (3, 1)


def test_images_are_counted_and_right_or_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    log = TrainingLog(LogOptions(log_format="json", log_interval=2), CPU, unit="images")
    progress = Progress(unique=10, processed=20)
    log.update(report(1, unique=6, processed=12, means={"nll": 1.0, "top1": 0.5}), progress, 0, seconds=0.5)
    log.update(report(2, unique=2, processed=4, means={"nll": 2.0, "top1": 0.1}), progress, 0, seconds=1.5)
    (line,) = lines(capsys.readouterr().out)
    assert line["nll"] == 1.25  # (12 · 1 + 4 · 2) / 16
    assert line["top1"] == 40.0  # percent: (12 · 0.5 + 4 · 0.1) / 16
    assert (line["unique_images"], line["processed_images"], line["unique_images_per_s"]) == (10, 20, 4.0)
    assert not [name for name in line if "token" in name or name == "ppl"]


@pytest.mark.parametrize("unit", ["tokens", "images"])
def test_a_tasks_sum_of_any_name_leaves_the_lines_as_they_are(unit: Unit, capsys: pytest.CaptureFixture[str]) -> None:
    def told(extra: dict[str, float]) -> list[dict[str, Any]]:
        log = TrainingLog(LogOptions(log_format="json", log_interval=1), CPU, max_update=5, unit=unit)
        log.update(report(1, means={"nll": 1.0, **extra}), Progress(epoch=3, unique=10, processed=20), 2, seconds=0.5)
        metrics = report(1, means={"nll": 1.0, **extra}).totals.metrics(unit)
        log.validation("valid", {**metrics, "bleu": 30.0}, Progress(epoch=3, best=1.0), 1)
        told = lines(capsys.readouterr().out)
        del told[0]["memory_mb"]
        return told

    plain = told({})
    names = {*plain[0], *plain[1], "memory_mb"} - {"nll"}
    assert len(names) > 12
    for line, whole in zip(plain, told(dict.fromkeys(names, 7.0)), strict=True):
        assert {name: whole[name] for name in line} == line
        assert {name: whole[f"task_{name}"] for name in names} == dict.fromkeys(names, 7.0)


def test_a_tasks_sum_of_any_name_fits_into_the_bar(capsys: pytest.CaptureFixture[str]) -> None:
    log = TrainingLog(LogOptions(log_format="tqdm"), CPU)
    names = ("loss", "lr", "refresh", "ordered_dict", "self")
    log.update(report(1, means={"nll": 1.0, **dict.fromkeys(names, 7.0)}), Progress(), 0, 1.0)
    log.close()
    assert "refresh=7.00" in capsys.readouterr().err


def test_every_window_starts_anew_and_the_rest_is_told_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    log = TrainingLog(LogOptions(log_format="json", log_interval=2), CPU)
    for update in (1, 2, 3, 4, 5):
        log.update(report(update, float(update)), Progress(), 0, 1.0)
    log.close()
    told = [(line["update"], line["loss"], line["eta_s"]) for line in lines(capsys.readouterr().out)]
    assert told == [(2, 1.5, None), (4, 3.5, None), (5, 5.0, None)]


def test_what_json_has_no_number_for_becomes_null(capsys: pytest.CaptureFixture[str]) -> None:
    log = TrainingLog(LogOptions(log_format="json", log_interval=1), CPU)
    log.update(report(1, math.nan, skipped=True), Progress(), 1, 1.0)
    log.update(report(1, 5000.0), Progress(), 1, 1.0)
    (line,) = lines(capsys.readouterr().out)
    assert (line["loss"], line["ppl"]) == (5000.0, None)
    assert line["seconds_per_update"] == 2.0  # the skipped update took time as well


@pytest.mark.parametrize("log_format", ["json", "simple"])
def test_the_best_value_so_far_is_told_with_its_metric(log_format: str, capsys: pytest.CaptureFixture[str]) -> None:
    log = TrainingLog(LogOptions(log_format=log_format), CPU, best_metric="bleu")
    log.validation("valid", {"loss": 1.25, "bleu": 29.0}, Progress(epoch=2, best=30.0), 40)
    log.update(report(41), Progress(), 0, 1.0)
    log.close()
    valid, train = capsys.readouterr().out.splitlines()
    if log_format == "json":
        assert (json.loads(valid)["best"], json.loads(valid)["best_of"]) == (30.0, "bleu")
    else:
        assert valid.endswith(" | loss 1.25 | bleu 29.0 | best_bleu 30.0 | unit nats")
    assert "best" not in train


def test_validation_lines(capsys: pytest.CaptureFixture[str]) -> None:
    log = TrainingLog(LogOptions(log_format="json"), CPU)
    log.validation("valid", {"loss": 1.25, "ppl": math.inf, "bleu": 30.0}, Progress(epoch=2, best=1.0), 40)
    assert lines(capsys.readouterr().out) == [
        {
            "event": "valid",
            "subset": "valid",
            "epoch": 2,
            "update": 40,
            "loss": 1.25,
            "ppl": None,
            "bleu": 30.0,
            "best": 1.0,
            "best_of": "loss",
            "unit": "nats",
        }
    ]


def test_simple_lines(capsys: pytest.CaptureFixture[str]) -> None:
    log = TrainingLog(LogOptions(log_format="simple", log_interval=1), CPU)
    log.update(report(1), Progress(), 0, 1.0)
    assert capsys.readouterr().out.startswith("train | epoch 1 | update 1 | lr 0.1 | loss 2.0 | nll 1.0 |")


def test_no_lines(capsys: pytest.CaptureFixture[str]) -> None:
    log = TrainingLog(LogOptions(log_format="none", log_interval=1), CPU)
    log.update(report(1), Progress(), 0, 1.0)
    log.close()
    assert capsys.readouterr() == ("", "")


def test_a_bar_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    log = TrainingLog(LogOptions(log_format="tqdm", log_interval=1), CPU, max_update=4)
    log.update(report(1), Progress(), 0, 1.0)
    log.update(report(2), Progress(), 0, 1.0)
    log.validation("valid", {"loss": 1.25}, Progress(), 2)
    log.close()
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "2/4" in captured.err
    assert "valid | subset valid" in captured.err


@pytest.mark.parametrize(
    ("options", "terminal", "expected"),
    [
        (LogOptions(), False, "json"),
        (LogOptions(), True, "tqdm"),
        (LogOptions(no_progress_bar=True), True, "simple"),
        (LogOptions(log_format="none"), True, "none"),
    ],
)
def test_the_format_fits_where_it_goes(
    options: LogOptions, terminal: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for stream in ("sys.stdout", "sys.stderr"):
        monkeypatch.setattr(stream, SimpleNamespace(isatty=lambda: terminal))
    assert TrainingLog(options, CPU).format == expected


@pytest.mark.parametrize("log_format", [None, "json", "simple", "tqdm", "none"])
@pytest.mark.parametrize("is_closed", [False, True], ids=["None", "closed"])
def test_a_process_without_standard_streams_logs_into_files_alone(
    log_format: Any, is_closed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("stdout", "stderr"):
        stream = io.StringIO() if is_closed else None
        if stream is not None:
            stream.close()
        monkeypatch.setattr(sys, name, stream)
    log = TrainingLog(LogOptions(log_format=log_format, log_interval=1, log_file=str(tmp_path / "log")), CPU)
    log.update(report(1), Progress(), 0, 1.0)
    log.validation("valid", {"loss": 1.0}, Progress(), 1)
    log.close()
    assert [line["event"] for line in lines((tmp_path / "log").read_text(encoding="utf-8"))] == ["train", "valid"]


def test_the_log_file_gets_json_whatever_the_format(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "run.jsonl"
    for update in (1, 2):  # a run that goes on appends
        log = TrainingLog(LogOptions(log_format="none", log_interval=1, log_file=str(path)), CPU)
        log.update(report(update), Progress(), 0, 1.0)
        log.close()
    assert [line["update"] for line in lines(path.read_text(encoding="utf-8"))] == [1, 2]


def test_a_log_file_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--log-file .* can't be written to"):
        TrainingLog(LogOptions(log_file=str(tmp_path)), CPU)


def test_a_log_file_stays_utf8(tmp_path: Path) -> None:
    path = tmp_path / "caf\udce9" / "run.jsonl"
    log = TrainingLog(LogOptions(log_format="none", log_file=str(path)), CPU)
    log.validation("caf\udce9", {"loss": 1.25}, Progress(), 1)
    log.close()
    assert [line["subset"] for line in lines(path.read_text(encoding="utf-8"))] == ["caf\udce9"]


def test_messages_stand_above_the_bar_while_there_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    """Written straight to the terminal, a message would begin in the middle of the bar's line."""
    root, handler = logging.getLogger(), logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("told: %(message)s"))
    root.addHandler(handler)
    log = TrainingLog(LogOptions(log_format="tqdm", log_interval=1), CPU, max_update=4)
    try:
        log.update(report(1), Progress(), 0, 1.0)
        assert handler not in root.handlers
        logging.getLogger("seqba.training.run").warning("averaging begins")
        log.close()
        assert handler in root.handlers
    finally:
        root.removeHandler(handler)
    (line,) = (line for line in capsys.readouterr().err.splitlines() if "averaging" in line)
    assert line.rpartition("\r")[2].strip() == "told: averaging begins"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_names_the_log() -> None:
    log = TrainingLog(LogOptions(log_format="none", log_interval=1, log_file="/dev/full"), CPU, max_update=10)
    with pytest.raises(OSError, match="No space left") as raised:
        log.update(report(1), Progress(), 0, seconds=0.5)
    assert raised.value.filename == "/dev/full"
    with pytest.raises(OSError, match="No space left") as raised:
        log.close()
    assert raised.value.filename == "/dev/full"
