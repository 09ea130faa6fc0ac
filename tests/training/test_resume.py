from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import make_loop, make_options, make_record
from sums import SquaresTask

from seqba.checkpoints.file import write_checkpoint
from seqba.errors import UserError
from seqba.training.folder import LAST
from seqba.training.progress import Progress
from seqba.training.resume import restore
from seqba.training.signals import StopSignal
from seqba.training.start import Resets, Start, find_start


def test_a_new_run_starts_from_nothing(tmp_path: Path) -> None:
    assert find_start(make_options(tmp_path).checkpoints) is None


def test_the_same_command_goes_on(trained: Path) -> None:
    loop = make_loop(make_options(trained, max_update=6))
    assert (loop.trainer.updates, loop.progress.epoch, loop.progress.updates_in_epoch) == (6, 2, 2)
    assert loop.progress.best is not None
    assert loop.trainer.optimisation.optimizer.state_dict()["state"][0]["step"] == 6


@pytest.mark.parametrize(
    ("flag", "kept"),
    [
        ("reset_optimizer", {"updates": 6, "epoch": 2, "best": True, "averages": False}),
        ("reset_lr_scheduler", {"updates": 0, "epoch": 2, "best": True, "averages": True}),
        ("reset_meters", {"updates": 6, "epoch": 2, "best": False, "averages": True}),
        ("reset_dataloader", {"updates": 6, "epoch": 1, "best": True, "averages": True}),
    ],
)
def test_resets_leave_one_thing_behind_and_only_once(flag: str, kept: dict[str, Any], trained: Path) -> None:
    def found(loop: Any) -> dict[str, Any]:
        return {
            "updates": loop.trainer.updates,
            "epoch": loop.progress.epoch,
            "best": loop.progress.best is not None,
            "averages": bool(loop.trainer.optimisation.optimizer.state_dict()["state"]),
        }

    options = make_options(trained, max_update=8, **{flag: True})
    loop = make_loop(options)
    assert found(loop) == kept
    loop.run(StopSignal())
    assert make_loop(options).trainer.updates == 8  # the same command again: nothing is reset a second time


def test_updates_that_are_counted_anew_are_validated_and_saved_anew(tmp_path: Path) -> None:
    """The checkpoint's first update was rounded off; the first update of the new run was not."""
    make_loop(make_options(tmp_path / "old", max_update=1)).run(StopSignal())
    assert torch.load(tmp_path / "old" / LAST)["extra_state"]["progress"]["last_finished_update"] == 1
    options = make_options(
        tmp_path / "new",
        max_update=2,
        save_interval_updates=1,
        restore_file=str(tmp_path / "old" / LAST),
        reset_lr_scheduler=True,
        reset_dataloader=True,
    )
    make_loop(options).run(StopSignal())
    assert (tmp_path / "new" / "checkpoint_1_1.pt").exists()


def test_a_named_checkpoint_begins_a_run_which_then_goes_on_by_itself(trained: Path, tmp_path: Path) -> None:
    new = tmp_path / "new"
    restore_file = str(trained / "checkpoint1.pt")
    options = make_options(new, max_update=8, restore_file=restore_file)
    loop = make_loop(options)
    assert loop.trainer.updates == 4
    loop.run(StopSignal())
    assert make_loop(options).trainer.updates == 8


def test_another_named_checkpoint_is_taken_although_there_is_a_last_one(trained: Path) -> None:
    start = find_start(make_options(trained, restore_file=str(trained / "checkpoint1.pt")).checkpoints)
    assert start is not None
    assert start.path.name == "checkpoint1.pt"


def test_finetuning_takes_the_weights_alone(trained: Path, tmp_path: Path) -> None:
    options = make_options(
        tmp_path / "new", max_update=2, finetune_from_model=str(trained / LAST), seed=7, lr=0.01, copies=4
    )
    loop = make_loop(options)
    assert (loop.trainer.updates, loop.progress.epoch, loop.progress.best) == (0, 1, None)
    assert not loop.trainer.optimisation.optimizer.state_dict()["state"]
    assert torch.equal(loop.trainer.model.weight, torch.load(trained / LAST)["model"]["weight"])
    loop.run(StopSignal())
    assert make_loop(options).trainer.updates == 2


def test_finetuning_into_the_folder_of_another_run_is_refused(trained: Path) -> None:
    with pytest.raises(UserError, match="already holds a run that did not begin with --finetune-from-model"):
        find_start(make_options(trained, finetune_from_model="a.pt").checkpoints)


@pytest.mark.parametrize("name", ["restore_file", "finetune_from_model"])
def test_a_named_checkpoint_must_be_there(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent\.pt does not exist"):
        find_start(make_options(tmp_path, **{name: "absent.pt"}).checkpoints)


def test_an_average_is_new_to_a_checkpoint_of_before_there_were_any(
    trained: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state = torch.load(trained / LAST)
    del state["cfg"]["training"]["optimisation"]["store_ema"]
    write_checkpoint(trained / LAST, state)
    assert make_loop(make_options(trained, store_ema=True)).trainer.updates == 6
    assert "--store-ema True (it had False)" in caplog.text


@pytest.mark.parametrize("part", ["progress", "trainer"])
def test_a_checkpoint_without_its_position_is_told(part: str, trained: Path) -> None:
    options = make_options(trained)
    state = torch.load(trained / LAST)
    del state["extra_state"][part]
    with pytest.raises(
        UserError, match=r"doesn't say where its run was: begin a new run .* --finetune-from-model .*last"
    ):
        restore(
            Start(trained / LAST, state, Resets(optimizer=True)),
            make_loop(options).trainer,
            make_record(options, SquaresTask()),
        )


def test_a_checkpoint_without_its_optimizer_names_the_ways_on(trained: Path) -> None:
    options = make_options(trained)
    record = make_record(options, SquaresTask())
    state = torch.load(trained / LAST)
    del state["last_optimizer_state"]
    with pytest.raises(
        UserError, match=r"has no optimizer state.*add --reset-optimizer .* --finetune-from-model .*last"
    ):
        restore(Start(trained / LAST, state, Resets()), make_loop(options).trainer, record)
    progress = restore(Start(trained / LAST, state, Resets(optimizer=True)), make_loop(options).trainer, record)
    assert (progress.epoch, progress.updates_in_epoch) == (2, 2)


def test_weights_alone_are_enough_to_finetune(trained: Path) -> None:
    options = make_options(trained)
    state = torch.load(trained / LAST)
    bare = {
        **state,
        "extra_state": {},
        "last_optimizer_state": None,
        "cfg": {**state["cfg"], "task": {}, "training": {}},
    }
    loop = make_loop(options)
    progress = restore(
        Start(trained / LAST, bare, Resets(True, True, True, True)),
        loop.trainer,
        make_record(options, SquaresTask()),
    )
    assert progress == Progress()
    assert torch.equal(loop.trainer.model.weight, state["model"]["weight"])


@pytest.mark.parametrize("value", [None, 3, "x", [1], {}, {"progress": 1, "trainer": 2}, float("inf")])
def test_parts_of_another_kind_are_told(value: object, trained: Path) -> None:
    options = make_options(trained)
    for part in ("progress", "trainer"):
        state = torch.load(trained / LAST)
        state["extra_state"][part] = value
        with pytest.raises(UserError, match="can't be resumed from, a part of it is missing or damaged"):
            restore(
                Start(trained / LAST, state, Resets()),
                make_loop(make_options(trained)).trainer,
                make_record(options, SquaresTask()),
            )
