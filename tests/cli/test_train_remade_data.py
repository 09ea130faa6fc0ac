"""Data that are made anew under a run: the same command goes on, and says that they are others."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import alphabet as texts
import numpy as np
import pytest
import reversal as pairs
from toy_images import write_coloured_cifar, write_folders

from seqba.cli.command import run
from seqba.cli.train import main

pytestmark = pytest.mark.usefixtures("one_thread")


def pair_arguments(data: Path, save_dir: Path) -> list[str]:
    return pairs.train_arguments(data, save_dir)


def text_arguments(data: Path, save_dir: Path) -> list[str]:
    return texts.train_arguments(data, save_dir)


def stream_arguments(data: Path, save_dir: Path) -> list[str]:
    model = ["--arch", "awd_lstm", "--decoder-embed-dim", "8", "--decoder-layers", "1", "--optimizer", "sgd"]
    sizes = ["--batch-size", "4", "--bptt", "20", "--copies", "2", "--lr", "1"]
    return [str(data), "--task", "language_modeling", "--save-dir", str(save_dir), "--cpu", *model, *sizes]


def image_arguments(data: Path, save_dir: Path) -> list[str]:
    split = ["--valid-subset", "val" if (data / "val").is_dir() else "test"]
    task = ["--task", "image_classification", "--arch", "resnet8", "--image-size", "16"]
    size = ["--batch-size", "4", "--cutout", "0", "--copies", "2", "--lr", "0.1"]
    return [str(data), "--save-dir", str(save_dir), "--cpu", *task, *split, *size]


def other_pictures(data: Path) -> None:
    """Exchanges two pictures of each split, under their names."""
    for split in ("train", "val"):
        one, other = (data / split / "cat" / name for name in ("0.png", "1.png"))
        content = one.read_bytes()
        one.write_bytes(other.read_bytes())
        other.write_bytes(content)


def other_words(data: Path) -> None:
    """Exchanges two words of each text, so that every line keeps its length."""
    for path in data.glob("*.bin"):
        ids = np.fromfile(path, dtype="<u2")
        ids[ids < 4] += 100
        ids = np.where(ids == 4, 5, np.where(ids == 5, 4, ids))
        np.where(ids >= 100, ids - 100, ids).astype("<u2").tofile(path)


@pytest.mark.parametrize(
    ("write", "change", "arguments"),
    [
        (pairs.write_reversal, other_words, pair_arguments),
        (texts.write_alphabet, other_words, text_arguments),
        (texts.write_alphabet, other_words, stream_arguments),
        (write_coloured_cifar, lambda data: write_coloured_cifar(data, seed=2), image_arguments),
        (write_folders, other_pictures, image_arguments),
    ],
    ids=["pairs", "blocks", "streams", "cifar", "folders"],
)
def test_data_made_anew_in_their_place_are_told_and_moved_ones_are_not(
    write: Callable[[Path], Path],
    change: Callable[[Path], object],
    arguments: Callable[[Path, Path], list[str]],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    data = write(tmp_path / "data")
    assert run(main, [*arguments(data, tmp_path / "run"), "--max-update", "1"]) == 0
    moved = Path(shutil.move(data, tmp_path / "moved"))
    caplog.clear()
    assert run(main, [*arguments(moved, tmp_path / "run"), "--max-update", "2"]) == 0
    assert "as data" not in caplog.text
    caplog.clear()
    change(moved)
    assert run(main, [*arguments(moved, tmp_path / "run"), "--max-update", "3"]) == 0
    told = caplog.text
    assert f"with other training data in {moved} than it had" in told
    assert "the best in" in told
    assert "other data in the split" in told


def test_a_later_folder_or_part_is_noticed_too(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first, second = (pairs.write_reversal(tmp_path / name, seed=seed) for seed, name in enumerate("ab"))
    arguments = pairs.train_arguments(Path(f"{first}:{second}"), tmp_path / "run")
    assert run(main, [*arguments, "--max-update", "1"]) == 0
    pairs.write_reversal(second, seed=5)
    caplog.clear()
    assert run(main, [*arguments, "--max-update", "2"]) == 0
    told = caplog.text
    assert f"with other training data in {first}:{second} than it had" in told
    assert "other data in the split" not in told  # validation is the first folder's
    caplog.clear()
    for part in first.glob("train.*"):
        shutil.copyfile(part, first / part.name.replace("train", "train1"))
    assert run(main, [*arguments, "--max-update", "3"]) == 2  # in the middle of an epoch that has more updates now
    assert "with other training data in" in caplog.text
