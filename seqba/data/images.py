"""Labelled pictures: what a folder holds, and the batches of an epoch, decoded ahead of time where that takes long."""

from __future__ import annotations

import multiprocessing
import signal
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from seqba.data.cifar import Cifar, find_cifar
from seqba.data.image_batch import ImageBatch, ImageSource, Rows
from seqba.data.image_folder import LABELS_FROM, ImageFolder, find_splits
from seqba.errors import UserError, quoted

__all__ = ["ImageBatch", "ImageBatches", "ImageSource", "open_images"]


def open_images(folder: str | Path, split: str, *, decode_size: int) -> ImageSource:
    """Opens a split of the pictures in a folder, in whichever layout they are.

        CIFAR-10    data_batch_1.bin … data_batch_5.bin, test_batch.bin, batches.meta.txt
        CIFAR-100   train.bin, test.bin, fine_label_names.txt (the fine labels are the classes)
        otherwise   SPLIT/CLASS/…/PICTURE

    CIFAR may also lie in the subfolder that its official archive makes, cifar-10-batches-bin or cifar-100-binary. Where
    there are folders of classes, single files of CIFAR's names beside them say nothing.

    Args:
        folder: what a user gave as DATA.
        split: `train` and `test` for CIFAR, the name of a subfolder otherwise.
        decode_size: pixels that the shorter side of a picture is shrunk to; CIFAR's stay as they are.

    Raises:
        UserError: for a folder or a split that isn't there, or files that can't be used.
    """
    given, folder = folder, Path(folder)
    if not folder.is_dir():
        raise UserError(
            f"there is no folder {given} with pictures: check the path, or make it (see data_prep/README.md)"
        )
    if not split or split in (".", "..") or "/" in split or "\\" in split or "\0" in split:
        raise UserError(
            f"{quoted(split)} is not the name of a split: it must be the name of a subfolder, without separators"
        )
    splits = find_splits(folder)
    cifar = find_cifar(folder, whole=bool(splits))
    if cifar is not None:
        place, layout = cifar
        if LABELS_FROM in splits:
            raise UserError(
                f"{folder} holds both {layout.title} ({place}) and folders of classes ({folder / LABELS_FROM}): which "
                "are meant? Keep them in different folders"
            )
        return Cifar(place, split, layout)
    return ImageFolder(folder, split, decode_size=decode_size)


class ImageBatches:
    """The batches of an epoch or a split: lists of pictures that were drawn beforehand, read when asked for.

    Mapped pictures are read here, which takes less than sending them from one process to another. Others are decoded in
    `workers` processes, a few batches ahead of the one asked for. These begin with the first batch that is asked for,
    end after the last one, and begin anew there when another than the next is asked for, so that a resumed epoch costs
    nothing for what it skips.

    The batches are the same whatever the number of workers: nothing is drawn here.

    Args:
        source: the pictures.
        batches: the numbers of each batch's pictures, (B,) each.
        workers: how many processes decode; 0 decodes here.

    Raises:
        ValueError: if `workers` < 0.
    """

    def __init__(self, source: ImageSource, batches: Sequence[Rows], *, workers: int = 0) -> None:
        if workers < 0:
            raise ValueError(f"workers is {workers}; it must be at least 0")
        self.source = source
        self.batches = batches
        self.workers = 0 if isinstance(source, Cifar) else workers
        self._ahead: Iterator[ImageBatch | _Complaint] = iter(())
        self._next: int | None = None  # what the workers hand over next; None where there are none

    def __len__(self) -> int:
        """Number of batches."""
        return len(self.batches)

    def __getitem__(self, number: int) -> ImageBatch:
        """Batch `number`, counting from 0.

        Raises:
            UserError: for a picture that can't be decoded, or a worker that died.
        """
        if not 0 <= number < len(self):
            raise IndexError(f"batch {number} of {len(self)}")
        if not self.workers:
            return self.source.read(self.batches[number])
        if number != self._next:
            self.close()
            self._ahead = self._start(number)
        batch = self._receive()
        self._next = number + 1
        if self._next == len(self):
            self.close()
        return batch

    def close(self) -> None:
        """Ends the workers; asking for another batch starts them again."""
        self._next = None
        self._ahead = iter(())  # the loader's iterator ends its processes when nobody holds it any more

    def _start(self, first: int) -> Iterator[ImageBatch | _Complaint]:
        # Where workers come from a fork server (Python 3.14 on Linux), it imports torch once, not each of them anew.
        multiprocessing.set_forkserver_preload(["__main__", __name__])
        # The loader's handler of SIGCHLD raises wherever this process happens to be when a worker dies, in the middle
        # of an update for instance. Without it the death is noticed where a batch is waited for, within seconds.
        before = signal.getsignal(signal.SIGCHLD)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*suggested max number of worker")  # the user chose their number
            ahead = iter(self._loader(first))
        if signal.getsignal(signal.SIGCHLD) != before:
            signal.signal(signal.SIGCHLD, before)
        return ahead

    def _loader(self, first: int) -> DataLoader[ImageBatch | _Complaint]:
        return DataLoader(
            _Reader(self.source, self.batches),
            sampler=range(first, len(self)),
            batch_size=None,
            num_workers=min(self.workers, len(self) - first),
            collate_fn=_as_it_is,
            worker_init_fn=_ignore_interrupts,
            generator=torch.Generator(),  # without one, the workers' seed is drawn from the global generator
        )

    def _receive(self) -> ImageBatch:
        try:
            batch = next(self._ahead)  # no name for it here: an error's traceback would keep the processes alive
        except (RuntimeError, EOFError, OSError) as error:
            # Its death itself, or a batch that nobody hands over any more: the worker shares its memory when asked.
            self.close()
            reason = str(error) or type(error).__name__
            raise UserError(
                f"a process that decodes pictures of {self.source.name} died ({reason}): often memory has run out, or "
                "shared memory (/dev/shm); take fewer workers or smaller batches, or decode without workers"
            ) from None
        except BaseException:
            self.close()
            raise
        if isinstance(batch, _Complaint):
            self.close()
            raise UserError(batch.line)
        return batch


@dataclass(frozen=True)
class _Complaint:
    """A worker's `UserError`: raised there, it would come back wrapped in a traceback."""

    line: str


class _Reader(Dataset["ImageBatch | _Complaint"]):
    """State of a worker: the pictures, and which of them make a batch."""

    def __init__(self, source: ImageSource, batches: Sequence[Rows]) -> None:
        self.source = source
        self.batches = batches

    def __getitem__(self, number: int) -> ImageBatch | _Complaint:
        try:
            return self.source.read(self.batches[number])
        except UserError as error:
            return _Complaint(str(error))


def _as_it_is(batch: Any) -> Any:
    return batch


def _ignore_interrupts(_worker: int) -> None:
    """Ctrl-C reaches the workers too; whether it ends the run, and when, is for the main process to say."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
