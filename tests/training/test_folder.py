from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from seqba.core import ALONE
from seqba.errors import UserError
from seqba.training.folder import LAST, CheckpointFolder, held_folder
from seqba.training.options import CheckpointOptions
from seqba.training.progress import Progress


def folder_with(path: Path, **rules: object) -> CheckpointFolder:
    return CheckpointFolder(CheckpointOptions(save_dir=str(path), **rules))  # type: ignore[arg-type]


def names(path: Path) -> list[str]:
    return sorted(file.name for file in path.iterdir())


def test_one_state_under_several_names(tmp_path: Path) -> None:
    folder = folder_with(tmp_path)
    folder.save({"x": torch.ones(2)}, ["checkpoint1.pt", "checkpoint_best.pt"])
    folder.save({"x": torch.zeros(2)}, [])
    assert names(tmp_path) == ["checkpoint1.pt", "checkpoint_best.pt", LAST]
    assert torch.load(tmp_path / LAST)["x"].sum() == 0
    assert torch.load(tmp_path / "checkpoint1.pt")["x"].sum() == 2
    assert torch.load(tmp_path / "checkpoint_best.pt")["x"].sum() == 2


def test_names_where_there_are_no_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    folder_with(tmp_path).save({"x": torch.ones(2)}, ["checkpoint1.pt"])
    assert names(tmp_path) == ["checkpoint1.pt", LAST]
    assert torch.load(tmp_path / LAST)["x"].sum() == 2


def test_last_is_written_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = folder_with(tmp_path)
    folder.save({"x": torch.ones(1)}, [])
    written: list[str] = []
    monkeypatch.setattr("seqba.training.folder.write_checkpoint", lambda path, state: written.append(path.name))
    monkeypatch.setattr("seqba.training.folder.copy_checkpoint", lambda source, target: written.append(target.name))
    folder.save({"x": torch.ones(1)}, ["checkpoint3.pt", "checkpoint_best.pt"])
    assert written == ["checkpoint3.pt", "checkpoint_best.pt", LAST]


def test_epoch_and_interval_checkpoints_beyond_the_last_few_go(tmp_path: Path) -> None:
    for name in ("1", "2", "9", "10", "_1_100", "_1_200", "_2_1000", "_best", "_last", "_average"):
        (tmp_path / f"checkpoint{name}.pt").touch()
    folder_with(tmp_path, keep_last_epochs=2, keep_interval_updates=1, save_interval_updates=100).prune(
        Progress(), "loss"
    )
    expected = ["10", "9", "_2_1000", "_average", "_best", "_last"]
    assert names(tmp_path) == sorted(f"checkpoint{name}.pt" for name in expected)


def test_nothing_goes_without_a_rule(tmp_path: Path) -> None:
    for name in ("1", "2", "_1_100", "_1_200"):
        (tmp_path / f"checkpoint{name}.pt").touch()
    folder_with(tmp_path).prune(Progress(), "loss")
    assert len(names(tmp_path)) == 4


def test_the_best_few_are_kept(tmp_path: Path) -> None:
    folder, progress = folder_with(tmp_path, keep_best_checkpoints=2), Progress()
    given = []
    for value in (3.0, 2.0, 2.0001, 5.0, float("nan"), 1.0):
        name = folder.rank_best(progress, "loss", value, maximize=False)
        given.append(name)
        if name is not None:
            (tmp_path / name).touch()
        folder.prune(progress, "loss")
    assert given == [
        "checkpoint.best_loss_3.0000.pt",
        "checkpoint.best_loss_2.0000.pt",
        "checkpoint.best_loss_2.0001.pt",  # 2.000 as well: the digit tells them apart
        None,
        None,
        "checkpoint.best_loss_1.0000.pt",
    ]
    assert names(tmp_path) == ["checkpoint.best_loss_1.0000.pt", "checkpoint.best_loss_2.0000.pt"]


def test_the_best_few_upwards(tmp_path: Path) -> None:
    folder, progress = folder_with(tmp_path, keep_best_checkpoints=1), Progress()
    kept = [folder.rank_best(progress, "bleu", value, maximize=True) for value in (20.0, 10.0, 30.0)]
    assert kept == ["checkpoint.best_bleu_20.0000.pt", None, "checkpoint.best_bleu_30.0000.pt"]


def test_no_save_writes_nothing(tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "absent", no_save=True)
    folder.prepare()
    folder.save({"x": torch.ones(1)}, ["checkpoint1.pt"])
    folder.prune(Progress(), "loss")
    assert not (tmp_path / "absent").exists()


def test_a_folder_that_cannot_be_made_is_told_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"--save-dir .* can't be written to"):
        folder_with(tmp_path / "file" / "checkpoints").prepare()


def test_two_runs_have_no_folder_in_common(tmp_path: Path) -> None:
    options = CheckpointOptions(save_dir=str(tmp_path / "new" / "run"))
    with held_folder(options, ALONE):
        with pytest.raises(UserError, match=r"--save-dir .*run is that of a run that is still going"):
            hold(options)
        hold(CheckpointOptions(save_dir=str(tmp_path / "new")))
        hold(CheckpointOptions(save_dir=options.save_dir, no_save=True))
    hold(options)
    assert not Path(options.save_dir).exists()  # nothing was written there


def hold(options: CheckpointOptions) -> None:
    with held_folder(options, ALONE):
        pass


HOLDING = """
import os, sys, time
from seqba.core import ALONE
from seqba.training.folder import held_folder
from seqba.training.options import CheckpointOptions

with held_folder(CheckpointOptions(save_dir=sys.argv[1]), ALONE):
    worker = os.fork()
    if worker == 0:
        os.close(1)
        time.sleep(60)
        os._exit(0)
    print(worker, flush=True)
    os._exit(1)
"""


def test_a_worker_that_outlives_its_run_holds_no_folder(tmp_path: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", HOLDING, str(tmp_path)], stdout=subprocess.PIPE, check=False)
    try:
        hold(CheckpointOptions(save_dir=str(tmp_path)))
    finally:
        os.kill(int(ended.stdout), signal.SIGKILL)
