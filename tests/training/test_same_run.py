"""What a run that goes on refuses, forgets or tells of, where its options or data have changed."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import make_loop, make_options, make_record
from sums import SquaresTask

from seqba.checkpoints.file import read_checkpoint, write_checkpoint
from seqba.errors import UserError
from seqba.training.folder import LAST
from seqba.training.resume import restore
from seqba.training.signals import StopSignal
from seqba.training.start import Resets, Start, find_start


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"seed": 2}, r"--seed 2 \(it had 1\)"),
        ({"copies": 3}, r"--copies 3 \(it had 2\)"),
        ({"update_freq": (1,)}, r"--update-freq \[1\] \(it had \[2\]\)"),
        ({"arm": "baseline"}, r"--arm baseline \(it had ba\)"),
    ],
)
def test_another_grid_is_refused(changes: dict[str, Any], named: str, trained: Path) -> None:
    with pytest.raises(UserError, match=rf"can't go on with {named}.*--reset-dataloader"):
        make_loop(make_options(trained, **changes))


def test_noise_of_another_key_version_is_refused_unless_the_data_starts_over(trained: Path) -> None:
    options = make_options(trained)
    record = make_record(options, SquaresTask())
    record = replace(record, key_version=record.key_version + 1)
    for resets, state in (
        (Resets(), torch.load(trained / LAST)),
        (Resets(optimizer=True), without_key_version(trained)),
    ):
        start = Start(trained / LAST, state, resets)
        with pytest.raises(UserError, match=r"key version 1, and this version of seqba draws that of 2: .*--save-dir"):
            restore(start, make_loop(options).trainer, record)
    start = Start(trained / LAST, torch.load(trained / LAST), Resets(dataloader=True))
    assert restore(start, make_loop(options).trainer, record).epoch == 1


def without_key_version(folder: Path) -> dict[str, Any]:
    """A checkpoint as versions before the key's wrote it, read as it is read today."""
    state = torch.load(folder / LAST)
    del state["cfg"]["key_version"]
    write_checkpoint(folder / "older.pt", state)
    return read_checkpoint(folder / "older.pt")


def test_a_checkpoint_of_before_there_were_forks_has_none(trained: Path) -> None:
    state = torch.load(trained / LAST)
    del state["cfg"]["training"]["grid"]["fork"]
    write_checkpoint(trained / LAST, state)
    trainer = make_loop(make_options(trained)).trainer
    assert trainer.updates == 6
    start = find_start(make_options(trained).checkpoints)
    assert start is not None
    with pytest.raises(UserError, match=r"--fork encoder \(it had None\)"):
        restore(start, trainer, make_record(make_options(trained, fork="encoder"), SquaresTask()))


def test_other_batches_are_refused(trained: Path) -> None:
    options = make_options(trained)
    loop = make_loop(options)
    record = make_record(options, SquaresTask(), max_tokens=10)
    start = find_start(options.checkpoints)
    assert start is not None
    with pytest.raises(UserError, match=r"--max-tokens 10 \(it had 9\)"):
        restore(start, loop.trainer, record)


def test_other_blocks_of_text_are_refused(tmp_path: Path) -> None:
    options = make_options(tmp_path, max_update=2)
    make_loop(options).run(StopSignal())
    state = torch.load(tmp_path / LAST)
    blocks = {"tokens_per_sample": 32, "sample_break_mode": "none", "add_bos_token": False}
    state["cfg"]["task"]["blocks"] = blocks
    for name, value in (("tokens_per_sample", 64), ("sample_break_mode", "eos"), ("add_bos_token", True)):
        record = make_record(options, SquaresTask())
        record = replace(record, task={**record.task, "blocks": {**blocks, name: value}})
        with pytest.raises(UserError, match=rf"--{name.replace('_', '-')} {value} \(it had {blocks[name]}\)"):
            restore(Start(tmp_path / LAST, state, Resets()), make_loop(options).trainer, record)


def test_another_family_of_models_is_refused_by_its_architecture(trained: Path) -> None:
    options = make_options(trained)
    record = replace(make_record(options, SquaresTask()), arch="curve", model={"bend": 4, "dropout": 0.5})
    start = find_start(options.checkpoints)
    assert start is not None
    with pytest.raises(UserError, match=r"can't go on with --arch curve \(it had line\): .*another --save-dir"):
        restore(start, make_loop(options).trainer, record)


def test_another_grid_is_fine_when_the_data_starts_over(trained: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        loop = make_loop(make_options(trained, seed=2, reset_dataloader=True))
    assert (loop.trainer.updates, loop.progress.epoch) == (6, 1)
    assert "--seed 2 (it had 1)" in caplog.text


def test_options_that_move_the_weights_are_told(trained: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        loop = make_loop(make_options(trained, lr=0.01, adam_betas=(0.8, 0.9), plan="looped", save_interval=3))
    assert "--lr 0.01 (it had 0.05)" in caplog.text
    assert "--plan looped (it had auto)" in caplog.text
    assert "save" not in caplog.text.replace(str(trained), "")
    assert loop.trainer.optimisation.optimizer.param_groups[0]["betas"] == (0.8, 0.9)  # the new ones hold


@pytest.mark.parametrize("schedule", ["cosine", "polynomial_decay"])
def test_another_end_of_a_schedule_that_ends_with_the_run_is_told(
    schedule: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_loop(make_options(tmp_path, max_update=4, lr_scheduler=schedule)).run(StopSignal())
    with caplog.at_level(logging.WARNING):
        make_loop(make_options(tmp_path, max_update=9, lr_scheduler=schedule))
    assert "with --max-update 9 (it had 4)" in caplog.text


def test_another_last_epoch_of_drop_path_that_rises_until_then_is_told(
    trained: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options = make_options(trained, max_epoch=9)
    record, start = make_record(options, SquaresTask()), find_start(options.checkpoints)
    assert start is not None
    start.state["cfg"]["model"]["options"]["drop_path"] = 0.2
    with caplog.at_level(logging.WARNING):
        restore(start, make_loop(options).trainer, replace(record, model={**record.model, "drop_path": 0.2}))
    assert "with --max-epoch 9 (it had 0)" in caplog.text


def test_nothing_is_told_when_nothing_has_changed(trained: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        make_loop(make_options(trained, max_update=99, log_interval=3))
    assert caplog.text == ""


def test_another_metric_begins_with_no_best(trained: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A BLEU below the loss would never be the best: the best checkpoint would stay that of the old metric."""
    assert make_loop(make_options(trained)).progress.best is not None
    options = make_options(
        trained, max_update=7, best_checkpoint_metric="bleu", maximize_best_checkpoint_metric=True, patience=9
    )
    with caplog.at_level(logging.WARNING):
        loop = make_loop(options, extra_metrics=lambda model, subset, should_stop: {"bleu": -3.0})
    assert "--best-checkpoint-metric bleu (it had loss)" in caplog.text
    loop.run(StopSignal())
    assert (loop.progress.best, loop.progress.validations_since_best) == (-3.0, 0)
    assert torch.load(trained / "checkpoint_best.pt")["optimizer_history"][0]["num_updates"] == 7


@pytest.mark.parametrize(
    ("metric", "changes", "named"),
    [
        ("loss", {"batches": {"valid_subset": "newer,valid"}}, r"--valid-subset newer (it had valid)"),
        ("loss", {"criterion": {"label_smoothing": 0.1}}, r"--label-smoothing 0.1 (it had 0.0)"),
        ("bleu", {"bleu": {"eval_bleu_args": '{"beam": 9}'}}, r"""--eval-bleu-args {"beam": 9} (it had {})"""),
    ],
)
def test_a_best_value_that_was_measured_otherwise_is_forgotten(
    metric: str, changes: dict[str, Any], named: str, trained: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options = make_options(trained, best_checkpoint_metric=metric, maximize_best_checkpoint_metric=metric == "bleu")
    loop = make_loop(make_options(trained))
    record = make_record(options, SquaresTask(), valid_subset="valid")
    record = replace(record, task={**record.task, "bleu": {"eval_bleu_args": "{}"}})
    state = {**torch.load(trained / LAST), "cfg": record.cfg()}
    start = Start(trained / LAST, state, Resets())
    assert restore(start, loop.trainer, record).best is not None
    more = replace(record, task={**record.task, "batches": {**record.task["batches"], "valid_subset": "valid,newer"}})
    assert restore(start, loop.trainer, more).best is not None  # the first split decides
    assert caplog.text == ""
    other = replace(record, task={**record.task, **{key: {**record.task[key], **changes[key]} for key in changes}})
    with caplog.at_level(logging.WARNING):
        progress = restore(start, loop.trainer, other)
    assert (progress.best, progress.epoch, progress.unique > 0) == (None, 2, True)
    assert named in caplog.text


def test_other_data_of_the_same_dictionaries_are_told(
    trained: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    options, loop = make_options(trained), make_loop(make_options(trained))
    record = make_record(options, SquaresTask())
    record = replace(record, task={**record.task, "data": "texts/bin:more"})
    start = Start(trained / LAST, {**torch.load(trained / LAST), "cfg": record.cfg()}, Resets())
    monkeypatch.chdir(trained)
    for same in ("texts/bin:more", "./texts//bin/:more/", f"{trained}/texts/bin:{trained}/more"):
        restore(start, loop.trainer, replace(record, task={**record.task, "data": same}))
        assert caplog.text == ""
    with caplog.at_level(logging.WARNING):
        restore(start, loop.trainer, replace(record, task={**record.task, "data": "texts/bin2"}))
    assert "with texts/bin2 as data (it had texts/bin:more)" in caplog.text


def test_a_moved_folder_is_the_same_data_and_one_that_was_made_anew_is_not(
    trained: Path, caplog: pytest.LogCaptureFixture
) -> None:
    loop = make_loop(make_options(trained))
    record = make_record(make_options(trained), SquaresTask(), valid_subset="valid,more")
    record = replace(
        record, task={**record.task, "data": "bin"}, fingerprints={"train": "1", "valid": "2", "more": "3"}
    )
    start = Start(trained / LAST, {**torch.load(trained / LAST), "cfg": record.cfg()}, Resets())
    moved = replace(record, task={**record.task, "data": "elsewhere"})
    assert restore(start, loop.trainer, moved).best is not None
    assert restore(start, loop.trainer, replace(record, fingerprints={**record.fingerprints, "more": "4"})).best
    assert caplog.text == ""
    with caplog.at_level(logging.WARNING):
        other = replace(record, fingerprints={**record.fingerprints, "train": "4"})
        assert restore(start, loop.trainer, other).best is not None
        assert "with other training data in bin than it had" in caplog.text
        assert "what was the best" not in caplog.text
        restore(start, loop.trainer, replace(other, task=moved.task))
        assert "with elsewhere as data (it had bin)" in caplog.text
        caplog.clear()
        valid = replace(record, fingerprints={**record.fingerprints, "valid": "4"})
        assert restore(start, loop.trainer, valid).best is None
    assert "validations now measure something else: other data in the split valid than it had" in caplog.text
    assert "training data" not in caplog.text


def test_another_model_or_dictionary_is_refused(trained: Path) -> None:
    options = make_options(trained)
    loop = make_loop(options)
    start = find_start(options.checkpoints)
    assert start is not None
    record = make_record(options, SquaresTask())
    record = replace(record, model={**record.model, "width": 5})
    with pytest.raises(UserError, match=r"--width 5 \(it had 4\).*another --save-dir"):
        restore(start, loop.trainer, record)
    other = make_record(options, SquaresTask())
    other = replace(other, task_state={**other.task_state, "sha256": "0"})
    with pytest.raises(UserError, match=r"on other data \(sha256 differ\).*, or take another --save-dir"):
        restore(start, loop.trainer, other)
    with pytest.raises(UserError, match=r"on other data \(sha256 differ\).*, or take another checkpoint"):
        restore(replace(start, is_named=True), loop.trainer, other)
    record = replace(make_record(options, SquaresTask()), task_state={"task": "cubes"})
    with pytest.raises(UserError, match=r"is of --task squares, and this run of --task cubes: take another --save-dir"):
        restore(start, loop.trainer, record)
