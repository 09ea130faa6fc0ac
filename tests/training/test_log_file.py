from __future__ import annotations

import json
from pathlib import Path

import pytest

from seqba.core import ALONE
from seqba.errors import UserError
from seqba.training.log_file import RUN_LOG, RunLog, open_run_log
from seqba.training.options import CheckpointOptions
from seqba.training.progress import Progress


def line(event: str, update: int) -> str:
    return json.dumps({"event": event, "update": update})


LINES = [line("train", 5), line("valid", 6), line("train", 10), line("valid", 10), line("train", 15)]


def write(path: Path, lines: list[str], tail: bytes = b"") -> Path:
    path.write_bytes("".join(each + "\n" for each in lines).encode() + tail)
    return path


def read(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize(
    ("update", "validated", "kept"),
    [(0, True, 0), (5, True, 1), (9, True, 2), (10, True, 4), (10, False, 3), (20, True, 5)],
)
def test_lines_of_updates_that_are_made_again_go(tmp_path: Path, update: int, validated: bool, kept: int) -> None:
    path = write(tmp_path / RUN_LOG, LINES)
    log = RunLog(path, update, validated=validated)
    assert read(path) == LINES[:kept]
    log.write(line("train", update + 5))
    assert read(path) == [*LINES[:kept], line("train", update + 5)]  # at once, not when it is closed
    log.close()


@pytest.mark.parametrize("tail", [b'{"event": "tra', b"\0\0\0", b"\0\0\n", b'{"event": "train", "update": 12}'])
def test_what_a_kill_or_a_power_cut_left_of_a_line_goes(tmp_path: Path, tail: bytes) -> None:
    path = write(tmp_path / RUN_LOG, LINES[:3], tail)
    RunLog(path, 20).close()
    assert read(path) == LINES[:3]


def test_a_part_of_the_first_line_goes_too(tmp_path: Path) -> None:
    path = write(tmp_path / RUN_LOG, [], b'{"eve')
    RunLog(path).close()
    assert path.read_bytes() == b""


@pytest.mark.parametrize("other", ["notes of mine", "[1, 2]", '{"update": 3}', '{"event": "x", "update": true}'])
def test_another_file_of_that_name_is_left_as_it_is(tmp_path: Path, other: str) -> None:
    path = write(tmp_path / RUN_LOG, [other])
    with pytest.raises(UserError, match=r"log\.jsonl is not the log of a run: move it away"):
        RunLog(path)
    assert read(path) == [other]


def test_a_log_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the log .* can't be written to: Is a directory"):
        RunLog(tmp_path)


def test_nothing_is_kept_with_no_save(tmp_path: Path) -> None:
    options = CheckpointOptions(save_dir=str(tmp_path), no_save=True)
    assert open_run_log(options, ALONE, 0, Progress()) is None
    assert not list(tmp_path.iterdir())


def test_validations_of_a_stopped_one_are_made_again(tmp_path: Path) -> None:
    path = write(tmp_path / RUN_LOG, LINES)
    log = open_run_log(CheckpointOptions(save_dir=str(tmp_path)), ALONE, 10, Progress(validation_pending=True))
    assert log is not None
    log.close()
    assert read(path) == LINES[:3]


def test_it_knows_its_own_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    log = RunLog(tmp_path / RUN_LOG)
    assert log.is_at("log.jsonl")
    assert log.is_at(f"{tmp_path}/x/../log.jsonl")
    assert not log.is_at("other.jsonl")
    assert not log.is_at(None)
    log.close()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_names_the_log_of_the_save_dir(tmp_path: Path) -> None:
    log = RunLog(tmp_path / RUN_LOG)
    log._file = open("/dev/full", "ab")  # noqa: SIM115 - closed below
    with pytest.raises(OSError, match="No space left") as raised:
        log.write("{}")
    assert raised.value.filename == str(tmp_path / RUN_LOG)
    with pytest.raises(OSError, match="No space left") as raised:
        log.close()
    assert raised.value.filename == str(tmp_path / RUN_LOG)
