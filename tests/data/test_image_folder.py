"""Folders of classes: what is a picture of which class, and the folders that must be refused."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from toy_images import picture, write_folders

from seqba.data.image_folder import ImageFolder, Paths, find_splits
from seqba.errors import UserError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folders(tmp_path / "pictures")


def test_classes_are_the_folders_of_train_by_name(folder: Path) -> None:
    for split in ("train", "val"):
        source = ImageFolder(folder, split, decode_size=20)
        assert source.classes == ["cat", "dog"]
        assert source.labels.tolist() == [0, 0, 0, 1, 1, 1]
        assert len(source) == 6
        assert split in source.name
        assert str(folder) in source.name


def test_a_batch_holds_the_pictures_asked_for(folder: Path) -> None:
    source = ImageFolder(folder, "train", decode_size=20)
    rows = np.array([5, 1, 5, 2])
    batch = source.read(rows)
    assert batch.labels.tolist() == [1, 0, 1, 0]
    assert batch.sizes.tolist() == [[20, 30], [30, 20], [20, 30], [40, 20]]
    assert batch.images.shape == (4, 3, 40, 30)
    for row, image, (height, width) in zip(rows.tolist(), batch.images, batch.sizes.tolist(), strict=True):
        assert source.path(row) == str(folder / "train" / ("cat", "dog")[row // 3] / f"{row % 3}.png")
        with Image.open(source.path(row)) as expected:
            pixels = torch.from_numpy(np.array(expected))
        assert torch.equal(image[:, :height, :width].permute(1, 2, 0), pixels)
        assert int(image.sum()) == int(pixels.sum())


def test_large_pictures_are_shrunk(folder: Path) -> None:
    batch = ImageFolder(folder, "train", decode_size=10).read(np.array([2, 4]))
    assert batch.sizes.tolist() == [[20, 10], [10, 12]]


def test_pictures_are_found_by_their_endings_in_folders_too(folder: Path) -> None:
    cats = folder / "train" / "cat"
    for name in ("b/x.JPG", "b/c/y.webp", "z.JPEG", "notes.txt", ".hidden.png", ".cache/a.png", "10.gif", "png"):
        (cats / name).parent.mkdir(parents=True, exist_ok=True)
        (cats / name).touch()
    (folder / "train" / ".cache").mkdir()
    (folder / "train" / "README.txt").touch()
    source = ImageFolder(folder, "train", decode_size=20)
    found = [os.path.relpath(source.path(row), cats) for row in range(len(source) - 3)]
    assert found == ["0.png", "1.png", "2.png", "b/c/y.webp", "b/x.JPG", "z.JPEG"]
    assert source.labels.tolist() == [0] * 6 + [1] * 3


JUNK = (".DS_Store", "Thumbs.db", "desktop.ini", "._0.png", "README.md", ".hidden/a.png", "labels.csv", "0.txt")


def test_junk_in_split_and_class_folders_is_no_picture(folder: Path) -> None:
    for place in (folder / "train", folder / "train" / "cat", folder / "val", folder / "val" / "dog"):
        for name in JUNK:
            (place / name).parent.mkdir(exist_ok=True)
            (place / name).write_bytes(b"junk")
    for split in ("train", "val"):
        source = ImageFolder(folder, split, decode_size=20)
        assert (source.classes, source.labels.tolist()) == (["cat", "dog"], [0, 0, 0, 1, 1, 1])
        source.read(np.arange(6))


@pytest.mark.parametrize(("size", "expected"), [((64, 64), 64), ((48, 32), 32), ((32, 48), 32), ((300, 200), None)])
def test_pictures_of_one_size_have_a_side(size: tuple[int, int], expected: int | None, tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / "train" / name).mkdir(parents=True)
        for number in range(3):
            Image.new("RGB", size).save(tmp_path / "train" / name / f"{number}.png")
    assert ImageFolder(tmp_path, "train", decode_size=128).side == expected  # none where they are shrunk
    Image.new("RGB", (64, 63)).save(tmp_path / "train" / "dog" / "last.png")
    assert ImageFolder(tmp_path, "train", decode_size=128).side is None


def test_a_file_that_is_no_picture_is_named_where_sizes_are_asked_for(folder: Path) -> None:
    (folder / "train" / "cat" / "0.png").write_bytes(b"junk")
    with pytest.raises(UserError, match=r"picture .*cat/0\.png is not a picture"):
        ImageFolder(folder, "train", decode_size=20).side  # noqa: B018


def test_a_folder_that_cannot_be_read_is_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir

    def refusing(path: Path) -> object:
        if Path(path).name in ("lost+found", "train"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    (folder / "lost+found").mkdir()
    monkeypatch.setattr(os, "scandir", refusing)
    assert find_splits(folder) == ["val"]
    with pytest.raises(UserError, match=r"folder .*train cannot be read: Permission denied"):
        ImageFolder(folder, "train", decode_size=20)


def test_the_order_is_not_that_of_the_disk(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = ImageFolder(folder, "train", decode_size=20)
    walk = os.walk

    def backwards(*arguments: object, **options: object) -> object:
        for place, folders, files in walk(*arguments, **options):  # type: ignore[call-overload]
            yield place, folders, sorted(files, reverse=True)

    monkeypatch.setattr(os, "walk", backwards)
    source = ImageFolder(folder, "train", decode_size=20)
    assert [source.path(row) for row in range(6)] == [expected.path(row) for row in range(6)]


def test_links_are_followed_once(folder: Path) -> None:
    dogs = folder / "train" / "dog"
    (dogs / "again").symlink_to(dogs)
    (folder / "elsewhere").mkdir()
    picture(20, 20, seed=9).save(folder / "elsewhere" / "a.png")
    (dogs / "more").symlink_to(folder / "elsewhere")
    source = ImageFolder(folder, "train", decode_size=20)
    assert [os.path.relpath(source.path(row), dogs) for row in range(3, len(source))] == [
        "0.png",
        "1.png",
        "2.png",
        "more/a.png",
    ]
    source.read(np.arange(len(source)))


def test_a_missing_split_names_those_that_are_there(folder: Path) -> None:
    with pytest.raises(UserError, match="has no split 'valid'; its folders are: train, val"):
        ImageFolder(folder, "valid", decode_size=20)


def test_labels_need_train(tmp_path: Path) -> None:
    write_folders(tmp_path, ("val",))
    with pytest.raises(UserError, match=r"has no split 'train', whose classes number the labels .*: val$"):
        ImageFolder(tmp_path, "val", decode_size=20)


def test_an_empty_folder_has_no_split(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="its folders are: none"):
        ImageFolder(tmp_path, "train", decode_size=20)


def test_pictures_without_classes_are_refused(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    picture(20, 20, seed=1).save(tmp_path / "train" / "a.png")
    with pytest.raises(UserError, match=r"train holds no class folders: pictures lie in .*train/CLASS/"):
        ImageFolder(tmp_path, "train", decode_size=20)


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_class_without_pictures_is_refused(split: str, folder: Path) -> None:
    for path in (folder / split / "dog").iterdir():
        path.rename(path.with_suffix(".gif"))
    with pytest.raises(UserError, match=rf"class .*{split}/dog holds no pictures \(files that end in \.jpg, "):
        ImageFolder(folder, split, decode_size=20)


@pytest.mark.parametrize(("split", "other"), [("val", "train"), ("train", "val")])
def test_splits_have_the_same_classes(split: str, other: str, folder: Path) -> None:
    (folder / split / "bird").mkdir()
    picture(20, 20, seed=1).save(folder / split / "bird" / "a.png")
    with pytest.raises(UserError, match=rf"same classes, but these are in .*{split} alone: bird$"):
        ImageFolder(folder, "val", decode_size=20)


def test_a_broken_picture_is_named(folder: Path) -> None:
    source = ImageFolder(folder, "train", decode_size=20)
    path = folder / "train" / "dog" / "1.png"
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(UserError, match=rf"picture {path} is "):
        source.read(np.array([0, 4]))


@pytest.mark.parametrize("row", [-1, 6])
def test_a_row_that_is_not_there_is_a_mistake(row: int, folder: Path) -> None:
    with pytest.raises(IndexError, match=f"picture {row} of train"):
        ImageFolder(folder, "train", decode_size=20).read(np.array([row]))


def test_a_size_of_nothing_is_a_mistake(folder: Path) -> None:
    with pytest.raises(ValueError, match="decode_size is 0"):
        ImageFolder(folder, "train", decode_size=0)


def test_paths_of_any_bytes_and_lengths() -> None:
    names = [b"a", b"", "ü/日本.png".encode(), b"\xff\xfe.png", b"x" * 5000]
    paths = Paths(iter(names))
    assert len(paths) == 5
    assert [os.fsencode(paths[row]) for row in range(5)] == names


def test_what_a_worker_is_sent_is_little_more_than_the_bytes() -> None:
    names = [f"n01440764/n01440764_{number}.JPEG".encode() for number in range(20_000)]
    assert len(pickle.dumps(Paths(names))) < sum(map(len, names)) + 9 * len(names)
