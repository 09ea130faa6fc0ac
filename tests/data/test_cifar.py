"""CIFAR's binary files: bytes worked by hand, and every file that must be refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from toy_images import write_cifar

from seqba.data.cifar import CIFAR10, CIFAR100, Cifar, Layout, find_cifar
from seqba.errors import UserError


@pytest.mark.parametrize("layout", [CIFAR10, CIFAR100], ids=lambda layout: layout.title)
@pytest.mark.parametrize("split", ["train", "test"])
def test_every_picture_and_label_is_that_of_its_record(layout: Layout, split: str, tmp_path: Path) -> None:
    files = write_cifar(tmp_path, layout)
    names = layout.train if split == "train" else (layout.test,)
    records = np.concatenate([files[name] for name in names])
    source = Cifar(tmp_path, split, layout)
    assert len(source) == len(records) == 20 * len(names)
    rows = np.random.default_rng(2).permutation(len(records)).repeat(2)  # any order, some twice
    batch = source.read(rows)
    pixels = records[rows, len(layout.kinds) :].reshape(-1, 3, 32, 32)
    assert torch.equal(batch.images, torch.from_numpy(pixels))
    assert batch.labels.tolist() == records[rows, len(layout.kinds) - 1].tolist()
    assert batch.sizes.tolist() == [[32, 32]] * len(rows)
    assert [batch.images.dtype, batch.sizes.dtype, batch.labels.dtype] == [torch.uint8, torch.int64, torch.int64]
    assert batch.images.is_contiguous()
    assert source.labels.tolist() == records[:, len(layout.kinds) - 1].tolist()


def test_a_record_worked_by_hand(tmp_path: Path) -> None:
    write_cifar(tmp_path, CIFAR100)
    red, green, blue = (np.arange(1024) % 251 + shift for shift in range(3))
    record = bytes([3, 42]) + b"".join(plane.astype(np.uint8).tobytes() for plane in (red, green, blue))
    (tmp_path / "test.bin").write_bytes(record)
    source = Cifar(tmp_path, "test", CIFAR100)
    batch = source.read(np.array([0]))
    assert batch.labels.tolist() == [42]  # the fine one
    assert source.classes[42] == "class42"
    assert batch.images[0, :, 2, 5].tolist() == [69, 70, 71]  # place 2·32 + 5 of each colour


def test_what_was_read_is_the_readers_own(tmp_path: Path) -> None:
    write_cifar(tmp_path, CIFAR10)
    source = Cifar(tmp_path, "test", CIFAR10)
    before = (tmp_path / "test_batch.bin").read_bytes()
    first = source.read(np.array([1]))
    expected = first.images.clone()
    first.images.zero_()
    first.labels.zero_()
    assert torch.equal(source.read(np.array([1])).images, expected)
    assert (tmp_path / "test_batch.bin").read_bytes() == before


def test_no_rows_are_an_empty_batch(tmp_path: Path) -> None:
    write_cifar(tmp_path, CIFAR10)
    batch = Cifar(tmp_path, "test", CIFAR10).read(np.array([], dtype=np.int64))
    assert (batch.images.shape, batch.sizes.shape, batch.labels.shape) == ((0, 3, 32, 32), (0, 2), (0,))


@pytest.mark.parametrize("row", [-1, 20])
def test_a_row_that_is_not_there_is_a_mistake(row: int, tmp_path: Path) -> None:
    write_cifar(tmp_path, CIFAR10)
    with pytest.raises(IndexError, match=rf"picture {row} of CIFAR-10 test .*, which has 20"):
        Cifar(tmp_path, "test", CIFAR10).read(np.array([0, row]))


@pytest.mark.parametrize("split", ["valid", "held-out", "data_batch_1"])
def test_another_split_names_the_two_and_the_options(split: str, tmp_path: Path) -> None:
    write_cifar(tmp_path, CIFAR10)
    with pytest.raises(UserError, match=f"no split '{split}'.*train and test: --valid-subset test .*--hold-out N"):
        Cifar(tmp_path, split, CIFAR10)


@pytest.mark.parametrize("kept", [-1, -3072, -3073 * 20 + 1, 0])
def test_a_truncated_file_is_refused(kept: int, tmp_path: Path) -> None:
    write_cifar(tmp_path, CIFAR10)
    path = tmp_path / "data_batch_3.bin"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(UserError, match=r"data_batch_3\.bin is (truncated|empty).*records of 3,073 bytes; make"):
        Cifar(tmp_path, "train", CIFAR10)
    assert len(Cifar(tmp_path, "test", CIFAR10)) == 20


@pytest.mark.parametrize(
    ("layout", "column", "label", "count"), [(CIFAR10, 0, 10, 10), (CIFAR100, 0, 20, 20), (CIFAR100, 1, 100, 100)]
)
def test_a_label_out_of_range_is_refused(layout: Layout, column: int, label: int, count: int, tmp_path: Path) -> None:
    records = write_cifar(tmp_path, layout)[layout.test]
    records[7, column] = label
    records.tofile(tmp_path / layout.test)
    with pytest.raises(UserError, match=rf"{layout.test}, picture 7: label {label} is beyond the {count} of"):
        Cifar(tmp_path, "test", layout)
    records[7, column] = label - 1
    records.tofile(tmp_path / layout.test)
    assert len(Cifar(tmp_path, "test", layout)) == 20


@pytest.mark.parametrize("name", ["data_batch_5.bin", "batches.meta.txt"])
def test_a_missing_file_is_named(name: str, tmp_path: Path) -> None:
    write_cifar(tmp_path, CIFAR10)
    (tmp_path / name).unlink()
    with pytest.raises(UserError, match=rf"{name} does not exist; make the folder again with data_prep/cifar\.py"):
        Cifar(tmp_path, "train", CIFAR10)


def test_too_few_names_are_refused(tmp_path: Path) -> None:
    write_cifar(tmp_path, CIFAR10)
    (tmp_path / "batches.meta.txt").write_text("cat\n\ndog\n")
    with pytest.raises(UserError, match=r"batches\.meta\.txt: 2 names, not 10"):
        Cifar(tmp_path, "train", CIFAR10)


@pytest.mark.parametrize("layout", [CIFAR10, CIFAR100], ids=lambda layout: layout.title)
def test_the_folder_is_found_by_one_of_its_files(layout: Layout, tmp_path: Path) -> None:
    assert find_cifar(tmp_path) is None
    inner = tmp_path / layout.folder
    inner.mkdir()
    (inner / layout.test).touch()
    assert find_cifar(tmp_path) == (inner, layout)
    assert find_cifar(inner) == (inner, layout)


def test_both_sets_in_one_folder_are_told_apart_by_the_user(tmp_path: Path) -> None:
    for layout in (CIFAR10, CIFAR100):
        write_cifar(tmp_path / layout.folder, layout)
    with pytest.raises(UserError, match=r"cifar-10-batches-bin and .*cifar-100-binary: give one of these folders"):
        find_cifar(tmp_path)


def test_pickles_are_refused(tmp_path: Path) -> None:
    (tmp_path / "data_batch_1").write_bytes(b"\x80\x02.")
    with pytest.raises(UserError, match="could run code"):
        find_cifar(tmp_path)
