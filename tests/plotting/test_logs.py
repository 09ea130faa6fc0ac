from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from seqba.errors import UserError
from seqba.plotting.curves import label_of
from seqba.plotting.logs import read_run


def line(update: int, event: str = "train", **more: Any) -> str:
    return json.dumps({"event": event, "update": update, **more}) + "\n"


def test_a_save_dir_says_what_run_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "log.jsonl").write_text(line(5, nll=2.0) + line(6, "valid", subset="valid", nll=1.0), encoding="utf-8")
    bare = read_run(str(folder))
    assert (bare.name, bare.arm, bare.copies, bare.seed) == ("mine", None, 1, None)
    (folder / "run.json").write_text('{"arm": "ba", "copies": 4, "seed": 7}', encoding="utf-8")
    for given in (folder, folder / "log.jsonl"):
        run = read_run(str(given))
        assert (run.name, run.arm, run.copies, run.seed) == ("mine", "ba", 4, 7)
        assert [each["nll"] for each in run.lines] == [2.0, 1.0]


def test_a_log_file_beside_its_save_dir_is_of_that_run(tmp_path: Path) -> None:
    (tmp_path / "ba").mkdir()
    (tmp_path / "ba" / "run.json").write_text('{"arm": "ba", "copies": 2, "seed": 1}', encoding="utf-8")
    (tmp_path / "ba.jsonl").write_text(line(5), encoding="utf-8")
    run = read_run(str(tmp_path / "ba.jsonl"))
    assert (run.name, run.arm, run.copies) == ("ba", "ba", 2)


def test_of_updates_made_again_the_later_lines_count(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    before = line(5, nll=1) + line(6, "valid", nll=2) + line(10, nll=3) + line(10, "valid", nll=4) + line(15, nll=5)
    path.write_text(before + line(10, nll=6) + line(10, "valid", nll=7) + line(12, nll=8), encoding="utf-8")
    assert [each["nll"] for each in read_run(str(path)).lines] == [1, 2, 6, 7, 8]
    path.write_text(before + line(7, nll=9), encoding="utf-8")
    assert [each["nll"] for each in read_run(str(path)).lines] == [1, 2, 9]


def test_messages_and_a_cut_line_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "printed.txt"
    path.write_text(
        "a message\n" + line(5) + "\n" + '{"event": "other"}\n' + line(6) + '{"event": "tr', encoding="utf-8"
    )
    assert [each["update"] for each in read_run(str(path)).lines] == [5, 6]


def test_a_record_has_its_curves_and_says_what_run_it_is(tmp_path: Path) -> None:
    path = tmp_path / "study.ba-4.7.json"
    curves = {"train": {"update": [5, 10], "nll": [2.0, None]}, "valid": {"update": [10], "nll": [1.5]}}
    path.write_text(
        json.dumps({"arm": "ba", "copies": 4, "seed": 7, "unit": "tokens", "curves": curves}), encoding="utf-8"
    )
    run = read_run(str(path))
    assert (run.name, run.arm, run.copies, run.seed, run.unit) == ("study.ba-4.7", "ba", 4, 7, "tokens")
    assert label_of("nll", [run]) == "negative log-likelihood (nats per token)"
    assert [(each["event"], each["update"], each["nll"]) for each in run.lines] == [
        ("train", 5, 2.0),
        ("train", 10, None),
        ("valid", 10, 1.5),
    ]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[1]",
        "{}",
        '{"arm": "ba", "copies": 4, "seed": 7, "curves": {}}',
        '{"arm": "ba", "copies": 4, "seed": 7, "curves": {"train": {"update": ["one"]}}}',
        '{"arm": "ba", "copies": 4, "seed": 7, "curves": {"train": {"update": [1], "nll": [1, 2]}}}',
        '{"arm": "ba", "copies": 4, "seed": 7, "curves": {"train": {"nll": [1]}}}',
        '{"arm": "ba", "seed": 7, "curves": {"train": {"update": [1]}}}',
    ],
)
def test_what_is_no_record_is_one_line(tmp_path: Path, content: str) -> None:
    path = tmp_path / "split.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=r"split\.json is no record of a run with its curves: give one, a save-dir, or"):
        read_run(str(path))


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("", "has no lines of training"),
        ("words\nand words\n", "has no lines of training"),
        ('{"event": "tr\n' + line(5), "line 1 is not JSON"),
        ("[1]\n", "has no lines of training"),
    ],
)
def test_what_is_no_log_is_told(tmp_path: Path, content: str, complaint: str) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=complaint):
        read_run(str(path))


def test_a_folder_without_a_log_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no log\.jsonl: name the save-dir of a run"):
        read_run(str(tmp_path))
    with pytest.raises(UserError, match="does not exist"):
        read_run(str(tmp_path / "none.jsonl"))
    (tmp_path / "log.jsonl").write_text(line(5), encoding="utf-8")
    (tmp_path / "run.json").write_text("{", encoding="utf-8")
    with pytest.raises(UserError, match=r"run\.json is not JSON"):
        read_run(str(tmp_path))


def test_options_of_a_run_but_those_in_which_seeds_differ(tmp_path: Path) -> None:
    record = {
        "task": {"name": "translation", "data": "bin", "batches": {"max_tokens": 9, "valid_subset": "valid"}},
        "model": {"arch": "transformer", "options": {"dropout": 0.1}},
        "training": {
            "grid": {"seed": 3, "copies": 4, "arm": "ba", "plan": "auto", "update_freq": [2]},
            "optimisation": {"clip_norm": 0.5},
            "schedule": {"lr": 0.1},
            "checkpoints": {"save_dir": "here"},
        },
    }
    (tmp_path / "log.jsonl").write_text(json.dumps({"event": "train", "update": 1}) + "\n", encoding="utf-8")
    (tmp_path / "run.json").write_text(json.dumps(record), encoding="utf-8")
    assert read_run(str(tmp_path)).settings == {
        "--max-tokens": 9,
        "--update-freq": [2],
        "--clip-norm": 0.5,
        "--lr": 0.1,
        "--arch": "transformer",
        "--dropout": 0.1,
    }
