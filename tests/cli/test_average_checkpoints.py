"""seqba-average-checkpoints: the right files, their mean, and a checkpoint that translates."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from translation_world import World

from seqba.checkpoints.file import read_checkpoint, write_checkpoint
from seqba.cli.average_checkpoints import main
from seqba.cli.command import run
from seqba.cli.generate import main as generate


def write(path: Path, value: float, **weights: Tensor) -> Path:
    """A checkpoint with one weight, and a counter."""
    state = {
        "args": None,
        "cfg": {"name": path.name},
        "model": {"weight": torch.full((2, 3), float(value)), "count": torch.tensor(int(value)), **weights},
        "optimizer_history": [{"num_updates": int(value)}],
        "task_state": {},
        "extra_state": {},
        "last_optimizer_state": {"state": {}},
    }
    write_checkpoint(path, state)
    return path


def average(folder: Path, *flags: str | Path) -> dict[str, object]:
    assert run(main, ["--output", str(folder / "mean.pt"), *map(str, flags)]) == 0
    return read_checkpoint(folder / "mean.pt")


def test_files_are_averaged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [write(tmp_path / f"{value}.pt", value) for value in (1, 2, 6)]
    state = average(tmp_path, "--inputs", *files)
    assert torch.equal(state["model"]["weight"], torch.full((2, 3), 3.0))  # type: ignore[index]
    assert int(state["model"]["count"]) == 1  # type: ignore[index]
    assert state["cfg"] == {"name": "1.pt", "key_version": 1}
    assert "last_optimizer_state" not in state
    assert "Averaged 3 checkpoint(s)" in capsys.readouterr().out
    assert torch.equal(read_checkpoint(files[0])["model"]["weight"], torch.full((2, 3), 1.0))


def test_names_have_their_folders_where_these_differ(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    average(tmp_path, "--inputs", write(tmp_path / "a" / "last.pt", 1), write(tmp_path / "b" / "last.pt", 3))
    assert capsys.readouterr().out.endswith(f"{tmp_path}/a/last.pt, {tmp_path}/b/last.pt\n")


def test_an_average_takes_the_place_of_none_of_its_checkpoints(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [write(tmp_path / f"checkpoint{value}.pt", value) for value in (1, 2)]
    before = files[1].read_bytes()
    (tmp_path / "link.pt").symlink_to(files[1])
    for inputs in ([*files], [tmp_path, "--num-epoch-checkpoints", "2"]):
        for output in (files[1], tmp_path / "link.pt"):
            assert run(main, ["--inputs", *map(str, inputs), "--output", str(output)]) == 2
            assert f"--output {output} would take the place of {files[1]}" in capsys.readouterr().err
    assert files[1].read_bytes() == before


def test_moving_averages_are_averaged_and_the_raw_weights_beside_them_left_behind(tmp_path: Path) -> None:
    files = [write(tmp_path / f"{value}.pt", value) for value in (1, 3)]
    for path in files:
        state = read_checkpoint(path)
        write_checkpoint(path, {**state, "raw_model": {name: 7 * value for name, value in state["model"].items()}})
    state = average(tmp_path, "--inputs", *files)
    assert torch.equal(state["model"]["weight"], torch.full((2, 3), 2.0))  # type: ignore[index]
    assert "raw_model" not in state


def test_runs_on_other_data_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, other = write(tmp_path / "1.pt", 1), write(tmp_path / "2.pt", 2)
    state = read_checkpoint(other)
    write_checkpoint(other, {**state, "task_state": {"task": "translation"}})
    assert run(main, ["--output", str(tmp_path / "mean.pt"), "--inputs", str(one), str(other)]) == 2
    assert "2.pt was trained on other data than" in capsys.readouterr().err
    assert not (tmp_path / "mean.pt").exists()


def test_models_that_read_their_weights_otherwise_are_refused(
    plain_world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = read_checkpoint(plain_world.checkpoint)
    del state["cfg"]["model"]["options"]["first_position"]  # as older versions wrote it
    older = tmp_path / "older.pt"
    write_checkpoint(older, state)
    state["cfg"]["model"]["options"] |= {"first_position": 2, "dropout": 0.3}
    write_checkpoint(tmp_path / "noisier.pt", state)
    paths = [str(plain_world.checkpoint), str(tmp_path / "noisier.pt")]
    assert run(main, ["--output", str(tmp_path / "mean.pt"), "--inputs", *paths]) == 0
    capsys.readouterr()
    assert run(main, ["--output", str(tmp_path / "mean.pt"), "--inputs", *paths, str(older)]) == 2
    assert "--first-position 0 in the one and 2 in the other" in capsys.readouterr().err
    mean = average(tmp_path, "--inputs", older, older)
    assert mean["cfg"]["model"]["options"]["first_position"] == 0  # type: ignore[index]


def test_one_checkpoint_is_its_own_mean(plain_world: World, tmp_path: Path) -> None:
    state = average(tmp_path, "--inputs", plain_world.checkpoint, plain_world.checkpoint, plain_world.checkpoint)
    expected = read_checkpoint(plain_world.checkpoint)["model"]
    assert all(torch.equal(state["model"][name], expected[name]) for name in expected)  # type: ignore[index]


def test_a_mean_translates(plain_world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = plain_world.write_checkpoint("second.pt", seed=4)
    average(tmp_path, "--inputs", plain_world.checkpoint, other)
    arguments = [str(plain_world.data), "--path", str(tmp_path / "mean.pt"), "--cpu", "--max-len-b", "10", "--quiet"]
    assert run(generate, arguments) == 0
    assert "Generate test with beam=5" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "mean"),
    [
        (["--num-epoch-checkpoints", "2"], 10.5),
        (["--num-epoch-checkpoints", "3", "--checkpoint-upper-bound", "10"], (10 + 9 + 2) / 3),
        (["--num-update-checkpoints", "2"], 250.0),
        (["--num-update-checkpoints", "1", "--checkpoint-upper-bound", "250"], 200.0),
    ],
)
def test_the_last_of_a_folder(tmp_path: Path, flags: list[str], mean: float) -> None:
    for epoch in (2, 9, 10, 11):
        write(tmp_path / f"checkpoint{epoch}.pt", epoch)
    for updates in (100, 200, 300):
        write(tmp_path / f"checkpoint_1_{updates}.pt", updates)
    for name in ("checkpoint_best.pt", "checkpoint_last.pt", "checkpoint99.pt.old"):
        write(tmp_path / name, 1e6)
    state = average(tmp_path, "--inputs", tmp_path, *flags)
    assert float(state["model"]["weight"][0, 0]) == pytest.approx(mean)  # type: ignore[index]


def test_the_best_of_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for value in (2.5, 1.25, 10.0):
        write(tmp_path / f"checkpoint.best_loss_{value:.3f}0.pt", value)
    state = average(tmp_path, "--inputs", tmp_path, "--num-best-checkpoints", "2")
    assert float(state["model"]["weight"][0, 0]) == pytest.approx(1.875)  # type: ignore[index]
    files = [write(tmp_path / f"checkpoint.best_bleu_{value:.3f}0.pt", value) for value in (9.0, 31.0, 30.0)]
    state = average(tmp_path, "--inputs", *files, "--num-best-checkpoints", "2")
    assert float(state["model"]["weight"][0, 0]) == pytest.approx(30.5)  # type: ignore[index]
    for metric in ("top1", "top5"):
        folder = tmp_path / metric
        folder.mkdir()
        for value in (9.0, 31.0, 30.0):
            write(folder / f"checkpoint.best_{metric}_{value:.3f}0.pt", value)
        state = average(tmp_path, "--inputs", folder, "--num-best-checkpoints", "2")
        assert float(state["model"]["weight"][0, 0]) == pytest.approx(30.5)  # type: ignore[index]
    assert run(main, ["--inputs", str(tmp_path), "--output", "x.pt", "--num-best-checkpoints", "2"]) == 2
    assert "different metrics (bleu, loss)" in capsys.readouterr().err


def test_mistakes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = str(write(tmp_path / "checkpoint1.pt", 1))
    wide = str(write(tmp_path / "wide.pt", 1, weight=torch.ones(3, 3)))
    more = str(write(tmp_path / "more.pt", 1, extra=torch.ones(1)))
    out = ["--output", str(tmp_path / "mean.pt")]
    cases: list[tuple[list[str], str]] = [
        ([one, *out[:0]], "--output is missing"),
        ([str(tmp_path), *out], "is a folder: add --num-epoch-checkpoints N"),
        ([one, wide, *out], "'weight' is (2, 3) in one and (3, 3) in the other"),
        ([one, more, *out], "only one of them has 'extra'"),
        ([str(tmp_path / "nowhere.pt"), *out], "nowhere.pt does not exist"),
        ([str(tmp_path), "--num-epoch-checkpoints", "2", *out], "has 1 such checkpoints, and 2 are asked for"),
        ([one, "--num-epoch-checkpoints", "1", *out], "takes one folder here"),
        ([one, "--checkpoint-upper-bound", "3", *out], "--checkpoint-upper-bound needs"),
        ([one, "--num-epoch-checkpoints", "1", "--num-best-checkpoints", "1", *out], "give one of"),
        ([one, "--output", str(tmp_path / "no" / "mean.pt")], "there is no folder"),
    ]
    for arguments, message in cases:
        assert run(main, ["--inputs", *arguments]) == 2, arguments
        captured = capsys.readouterr()
        assert message in captured.err
        assert captured.err.count("\n") == 1
    assert not (tmp_path / "mean.pt").exists()
