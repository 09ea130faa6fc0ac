"""Which layout a folder has, and batches that workers decode: the same ones, or one clear line."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from toy_images import write_cifar, write_folders

from seqba.data.cifar import CIFAR10, CIFAR100, Cifar, Layout
from seqba.data.image_folder import ImageFolder
from seqba.data.images import ImageBatch, ImageBatches, open_images
from seqba.errors import UserError

ROWS = [np.array([0, 5, 3]), np.array([4]), np.array([1, 2]), np.array([2, 2, 0, 1])]


@pytest.fixture(autouse=True)
def no_workers() -> Iterator[None]:
    """No test leaves workers to the next: a caught error holds, by its traceback, the loader that it came from."""
    yield
    if multiprocessing.active_children():
        gc.collect()
    assert multiprocessing.active_children() == []


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folders(tmp_path / "pictures")


@pytest.fixture
def source(folder: Path) -> ImageFolder:
    return ImageFolder(folder, "train", decode_size=20)


def equal(batch: ImageBatch, other: ImageBatch) -> bool:
    return all(torch.equal(getattr(batch, field), getattr(other, field)) for field in ("images", "sizes", "labels"))


@pytest.mark.parametrize("layout", [CIFAR10, CIFAR100], ids=lambda layout: layout.title)
@pytest.mark.parametrize("inner", [True, False])
def test_cifar_is_found_in_the_folder_or_in_the_archives_own(layout: Layout, inner: bool, tmp_path: Path) -> None:
    write_cifar(tmp_path / layout.folder if inner else tmp_path, layout)
    source = open_images(str(tmp_path), "test", decode_size=256)
    assert isinstance(source, Cifar)
    assert len(source.classes) == layout.kinds[-1]
    assert source.read(np.array([0])).images.shape == (1, 3, 32, 32)


STRAYS = [
    *(".DS_Store", "README.md", "Thumbs.db", ".git/objects/a", "meta", "data_batch_1", "batches.meta"),
    *(name for layout in (CIFAR10, CIFAR100) for name in layout.files),
    f"{CIFAR10.folder}/test_batch.bin",
]


@pytest.mark.parametrize("name", STRAYS)
def test_a_stray_file_beside_the_splits_decides_nothing(name: str, folder: Path) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(b"stray")
    source = open_images(folder, "val", decode_size=20)
    assert isinstance(source, ImageFolder)
    assert len(source) == 6


def test_a_stray_file_beside_cifar_decides_nothing(tmp_path: Path) -> None:
    write_cifar(tmp_path, CIFAR10)
    for name in ("test.bin", "meta", "data_batch_1", "README.md"):
        (tmp_path / name).touch()
    (tmp_path / "runs" / "first").mkdir(parents=True)  # where a user has his checkpoints, say
    assert len(open_images(tmp_path, "train", decode_size=20).classes) == 10


def test_both_cifar_and_classes_are_refused(folder: Path) -> None:
    write_cifar(folder, CIFAR100)
    with pytest.raises(UserError, match=r"holds both CIFAR-100 \(.*\) and folders of classes \(.*/train\)"):
        open_images(folder, "train", decode_size=20)


def test_other_folders_hold_classes(folder: Path) -> None:
    source = open_images(folder, "val", decode_size=10)
    assert isinstance(source, ImageFolder)
    assert source.read(np.array([0])).sizes.tolist() == [[10, 10]]


def test_a_missing_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name in ("nowhere", "file"):
        with pytest.raises(UserError, match=f"there is no folder {tmp_path / name} with pictures"):
            open_images(tmp_path / name, "train", decode_size=20)


@pytest.mark.parametrize("split", ["", ".", "..", "../train", "train/cat", "/etc", "a\\b", "a\0b"])
@pytest.mark.parametrize("cifar", [True, False])
def test_a_split_is_a_name_and_no_path(split: str, cifar: bool, folder: Path) -> None:
    if cifar:
        write_cifar(folder, CIFAR10)
    with pytest.raises(UserError, match="is not the name of a split"):
        open_images(folder, split, decode_size=20)


@pytest.mark.parametrize("workers", [0, 1, 2, 7])
def test_batches_are_the_same_whoever_decodes(workers: int, source: ImageFolder) -> None:
    batches = ImageBatches(source, ROWS, workers=workers)
    assert len(batches) == 4
    for number, rows in enumerate(ROWS):
        assert equal(batches[number], source.read(rows))


@pytest.mark.parametrize("order", [[2, 3], [1, 1, 0, 3, 2], [3, 0, 1, 2, 3], [0, 2]])
def test_batches_may_be_asked_for_in_any_order(order: list[int], source: ImageFolder) -> None:
    batches = ImageBatches(source, ROWS, workers=2)
    for number in order:
        assert equal(batches[number], source.read(ROWS[number]))
    batches.close()
    assert equal(batches[1], source.read(ROWS[1]))
    batches.close()


class Counting:
    """A source that notes what was read, on the disk, where workers can."""

    classes = ("cat",)
    name = "counted pictures"

    def __init__(self, source: ImageFolder, log: Path) -> None:
        self.source = source
        self.log = log
        log.touch()

    def __len__(self) -> int:
        return len(self.source)

    def read(self, rows: np.ndarray) -> ImageBatch:
        with open(self.log, "a") as log:
            log.write(f"{os.getpid()} {rows.tolist()}\n")
        return self.source.read(rows)

    def lines(self) -> list[tuple[int, str]]:
        return [(int(line.split(" ", 1)[0]), line.split(" ", 1)[1]) for line in self.log.read_text().splitlines()]


def test_batches_in_order_are_decoded_once_by_others(source: ImageFolder, tmp_path: Path) -> None:
    counting = Counting(source, tmp_path / "log")
    batches = ImageBatches(counting, ROWS, workers=2)
    for number in range(4):
        batches[number]
    lines = counting.lines()
    assert sorted(rows for _, rows in lines) == sorted(str(rows.tolist()) for rows in ROWS)
    processes = {process for process, _ in lines}
    assert os.getpid() not in processes
    assert len(processes) == 2


def test_a_resumed_epoch_does_not_decode_what_it_skips(source: ImageFolder, tmp_path: Path) -> None:
    counting = Counting(source, tmp_path / "log")
    ImageBatches(counting, ROWS, workers=2)[3]
    assert [rows for _, rows in counting.lines()] == ["[2, 2, 0, 1]"]


def test_mapped_pictures_are_read_here(tmp_path: Path) -> None:
    write_cifar(tmp_path, CIFAR10)
    batches = ImageBatches(open_images(tmp_path, "test", decode_size=32), [np.array([1, 0]), np.array([2])], workers=2)
    assert batches[0].images.shape == (2, 3, 32, 32)
    assert multiprocessing.active_children() == []


FORK_SERVER = """
import multiprocessing
import sys
from pathlib import Path

import numpy as np

from seqba.data.image_folder import ImageFolder
from seqba.data.images import ImageBatches

if __name__ == "__main__":
    multiprocessing.set_start_method("forkserver")
    source = ImageFolder(Path(sys.argv[1]), "train", decode_size=20)
    batches = ImageBatches(source, [np.array([0]), np.array([1])], workers=1)
    batches[0]
    (worker,) = multiprocessing.active_children()
    server = Path(f"/proc/{worker.pid}/stat").read_text().rpartition(")")[2].split()[1]
    print("libtorch" in Path(f"/proc/{server}/maps").read_text())
"""


def test_workers_of_a_fork_server_share_its_torch(folder: Path, tmp_path: Path) -> None:
    """Each would import it anew at every epoch otherwise: over a second, and hundreds of megabytes."""
    script = tmp_path / "script.py"
    script.write_text(FORK_SERVER, encoding="utf-8")
    done = subprocess.run([sys.executable, script, folder], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\n", "")


@pytest.mark.parametrize("how", ["the last batch", "close", "their owner"])
def test_workers_end_with(how: str, source: ImageFolder) -> None:
    batches = ImageBatches(source, ROWS, workers=2)
    batches[2]
    assert len(multiprocessing.active_children()) == 2
    if how == "the last batch":
        batches[3]
    elif how == "close":
        batches.close()
    else:
        del batches
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_picture_is_one_line_whoever_decodes(workers: int, source: ImageFolder, folder: Path) -> None:
    path = folder / "train" / "cat" / "2.png"
    path.write_bytes(b"no picture")
    batches = ImageBatches(source, ROWS, workers=workers)
    assert equal(batches[0], source.read(ROWS[0]))
    batches[1]
    with pytest.raises(UserError) as refused:
        batches[2]
    assert str(refused.value).startswith(f"picture {path} is not a picture in one of the formats")
    assert len(str(refused.value)) < 400  # no traceback in it
    assert equal(batches[1], source.read(ROWS[1]))
    batches.close()


class Dying(Counting):
    def read(self, rows: np.ndarray) -> ImageBatch:
        if rows[0] == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().read(rows)


@pytest.mark.slow
def test_a_worker_that_dies_is_one_line_where_its_batch_is_waited_for(source: ImageFolder, tmp_path: Path) -> None:
    handler = signal.getsignal(signal.SIGCHLD)
    batches = ImageBatches(Dying(source, tmp_path / "log"), ROWS, workers=1)
    expected = [source.read(rows) for rows in ROWS]
    received: list[ImageBatch] = []
    with pytest.raises(UserError, match=r"decodes pictures of counted pictures died \(.*take fewer workers"):
        received.extend(batches[number] for number in range(4))
    assert len(received) in (1, 2)  # what it had decoded before may be lost with it
    assert all(map(equal, received, expected))
    assert signal.getsignal(signal.SIGCHLD) == handler
    assert equal(batches[0], source.read(ROWS[0]))
    batches.close()


@pytest.mark.parametrize("error", [RuntimeError("exited"), EOFError(), ConnectionRefusedError(111, "refused")])
def test_every_trace_of_a_dead_worker_is_the_same_line(error: Exception, source: ImageFolder) -> None:
    def fail() -> Iterator[ImageBatch]:
        yield source.read(ROWS[0])
        raise error

    batches = ImageBatches(source, ROWS, workers=1)
    batches._ahead, batches._next = fail(), 0
    batches[0]
    with pytest.raises(UserError, match=r"pictures of train of .* died \(.+\): often memory has run out") as refused:
        batches[1]
    assert refused.value.__suppress_context__
    assert equal(batches[1], source.read(ROWS[1]))
    batches.close()


def test_nothing_is_drawn_from_the_global_generator(source: ImageFolder) -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    batches = ImageBatches(source, ROWS, workers=2)
    for number in range(4):
        batches[number]
    assert torch.equal(torch.get_rng_state(), state)


def test_an_interrupt_does_not_reach_the_workers(source: ImageFolder) -> None:
    batches = ImageBatches(source, ROWS, workers=1)
    batches[0]
    (worker,) = multiprocessing.active_children()
    os.kill(worker.pid or 0, signal.SIGINT)
    assert equal(batches[1], source.read(ROWS[1]))
    assert equal(batches[3], source.read(ROWS[3]))


@pytest.mark.parametrize("number", [-1, 4])
def test_a_batch_that_is_not_there_is_a_mistake(number: int, source: ImageFolder) -> None:
    with pytest.raises(IndexError, match=f"batch {number} of 4"):
        ImageBatches(source, ROWS)[number]


def test_fewer_than_no_workers_are_a_mistake(source: ImageFolder) -> None:
    with pytest.raises(ValueError, match="workers is -1"):
        ImageBatches(source, ROWS, workers=-1)
