"""Schedules of M."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from reversal import train_arguments
from small_runs import StopAfter, make_loop, make_options
from sums import SquaresTask

from seqba.checkpoints.file import read_checkpoint, write_checkpoint
from seqba.cli.command import run
from seqba.cli.train import main
from seqba.errors import UserError
from seqba.training.arms import derive_grid
from seqba.training.folder import LAST
from seqba.training.options import GridOptions
from seqba.training.options.grid import CopySchedule, copies_option, read_copies


def test_a_number_holds_for_all_updates() -> None:
    schedule = read_copies(4)
    assert (schedule, schedule.is_constant, str(schedule)) == (CopySchedule((4,)), True, "4")
    assert [schedule.at(update) for update in (1, 10**6)] == [4, 4]


def test_copies_change_from_the_named_updates_on() -> None:
    schedule = read_copies("1:0,4:20,2:30")
    assert [schedule.at(update) for update in (1, 19, 20, 29, 30, 99)] == [1, 1, 4, 4, 2, 2]
    assert (schedule.most, schedule.least, str(schedule)) == (4, 1, "1:0,4:20,2:30")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("two", "'two' is neither a number nor a schedule like 1:0,4:2000"),
        ("1:0,4", "neither a number nor a schedule"),
        ("1:0:3", "neither a number nor a schedule"),
        ("1:5,4:20", "the updates of 1:5,4:20 must rise from 0"),
        ("1:0,4:20,2:20", "must rise from 0"),
        ("0:0,4:20", "has 0 copies; there must be at least 1"),
    ],
)
def test_what_is_no_schedule_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        copies_option(text)
    with pytest.raises(UserError, match=f"--copies: .*{complaint}"):
        GridOptions(copies=text)


def test_ba_has_the_schedule_and_the_baseline_none() -> None:
    assert derive_grid(GridOptions(copies="1:0,4:20")).copies.at(20) == 4
    assert derive_grid(GridOptions(copies="1:0,4:20")).copies.least == 1
    assert derive_grid(GridOptions(copies="1:0,4:20", arm="baseline")).copies.at(20) == 1
    for arm in ("fixed-samples", "large-batch", "fixed-rows"):
        with pytest.raises(UserError, match=f"--copies 1:0,4:20 changes M on the way, and --arm {arm} would change"):
            derive_grid(GridOptions(copies="1:0,4:20", arm=arm))


def made(folder: Path, updates: int, copies: int | str, **changes: Any) -> Any:
    loop = make_loop(make_options(folder, copies=copies, max_update=updates, **changes))
    loop.run(StopAfter(10**6))
    return loop.trainer.model.state_dict()


def test_updates_are_those_of_either_number(tmp_path: Path) -> None:
    """Up to the change the run is that with one copy; from there on the updates are those with three."""
    before, one = made(tmp_path / "before", 3, "1:0,3:4"), made(tmp_path / "one", 3, 1)
    assert all(torch.equal(before[name], one[name]) for name in one)
    later = made(tmp_path / "later", 5, "1:0,3:4")
    for other in (made(tmp_path / "1", 5, 1), made(tmp_path / "3", 5, 3)):
        assert not all(torch.equal(later[name], other[name]) for name in later)


def test_going_on_equals_never_having_stopped_on_either_side_of_a_change(tmp_path: Path) -> None:
    straight = made(tmp_path / "straight", 6, "1:0,3:4")
    for stop in (2, 3, 4):
        folder = tmp_path / f"twice {stop}"
        made(folder, stop, "1:0,3:4")
        twice = made(folder, 6, "1:0,3:4")
        assert all(torch.equal(straight[name], twice[name]) for name in straight), stop


class Failing(SquaresTask):
    """Makes a loss that isn't finite in one of its passes."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.passes, self.at = 0, at

    def loss(self, model: Any, batch: Any) -> Any:
        loss, weight, sums = super().loss(model, batch)
        self.passes += 1
        return (loss * float("nan") if self.passes == self.at else loss), weight, sums


def copies_seen(loop: Any) -> list[int]:
    """M of each update that a run tries."""
    seen, update = [], loop.trainer.update

    def noting(batch: Any, status: Any) -> Any:
        seen.append(batch.copies)
        return update(batch, status)

    loop.trainer.update = noting
    loop.run(StopAfter(10**6))
    return seen


def test_a_skipped_update_counts_so_that_a_resumed_run_has_the_same_copies(tmp_path: Path) -> None:
    """Batches are read ahead of the update that may be skipped: M goes by batches, not by steps."""
    loop = make_loop(make_options(tmp_path, copies="1:0,3:4", max_update=4, update_freq=(1,)), task=Failing(at=4))
    assert copies_seen(loop) == [1, 1, 1, 3, 3]
    assert loop.trainer.skipped == 1


@pytest.mark.parametrize("resets", [{}, {"reset_meters": True}, {"reset_lr_scheduler": True}])
def test_counts_that_begin_anew_leave_the_copies_where_they_were(resets: dict[str, bool], tmp_path: Path) -> None:
    """Updates that begin anew have the schedule begin anew; the counts of the log don't."""
    common = {"copies": "1:0,3:5", "update_freq": (1,)}
    first = make_loop(make_options(tmp_path, max_update=2, **common), task=Failing(at=2))
    assert copies_seen(first) == [1, 1, 1]
    later = make_loop(make_options(tmp_path, max_update=5, **common, **resets))
    assert copies_seen(later) == ([1, 1, 1, 1, 3] if "reset_lr_scheduler" in resets else [1, 3, 3])
    assert later.trainer.skipped == (0 if "reset_meters" in resets else 1)


def test_a_checkpoint_that_does_not_count_what_was_tried_goes_on(tmp_path: Path) -> None:
    common = {"copies": "1:0,3:5", "update_freq": (1,)}
    copies_seen(make_loop(make_options(tmp_path, max_update=2, **common), task=Failing(at=2)))
    state = read_checkpoint(tmp_path / LAST)
    del state["extra_state"]["trainer"]["tried"]
    write_checkpoint(tmp_path / LAST, state)
    assert copies_seen(make_loop(make_options(tmp_path, max_update=4, **common))) == [1, 3]


@pytest.mark.parametrize("plan", ["stacked", "looped"])
def test_a_command_line_is_announced_logged_and_recorded(
    plan: str, reversal: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    arguments = train_arguments(reversal, tmp_path, "--max-update", "4", "--log-interval", "1", "--plan", plan)
    with caplog.at_level("INFO"):
        assert run(main, [*arguments, "--copies", "1:0,3:3"]) == 0
    assert "× 1 copy, 3 copies from update 3 on (--arm ba" in caplog.text
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["copies"] for line in lines if line["event"] == "train"] == [1, 1, 3, 3]
    resolved = json.loads((tmp_path / "run.json").read_text())
    assert (resolved["copies"], resolved["copy_schedule"]) == (3, "1:0,3:3")
    assert read_checkpoint(tmp_path / LAST)["cfg"]["training"]["grid"]["copies"] == "1:0,3:3"


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--copies", "3"], "--copies 3 (it had 1:0,3:3)"),
        (["--copies", "1:0,3:4"], "--copies 1:0,3:4 (it had 1:0,3:3)"),
    ],
)
def test_another_schedule_is_another_run(
    more: list[str], words: str, reversal: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = train_arguments(reversal, tmp_path, "--max-update", "1")
    assert run(main, [*arguments, "--copies", "1:0,3:3"]) == 0
    assert run(main, [*arguments, *more]) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (
            ["--criterion", "label_smoothed_cross_entropy_with_rdrop", "--rdrop-alpha", "5", "--plan", "stacked"],
            "--rdrop-alpha compares the copies of an example, and --arm ba with --copies 1:0,3:3 has one",
        ),
        (
            ["--task", "language_modeling", "--arch", "awd_lstm", "--batch-size", "4"],
            "those of --arch awd_lstm carry a state from update to update",
        ),
    ],
)
def test_what_does_not_fit_is_refused(
    more: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = [str(tmp_path), "--max-tokens", "160", "--lr", "0.1", "--copies", "1:0,3:3"]
    if "awd_lstm" in more:
        plain = [str(tmp_path), "--lr", "0.1", "--copies", "1:0,3:3"]
    assert run(main, [*plain, *more]) == 2
    assert words in capsys.readouterr().err
