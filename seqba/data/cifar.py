"""CIFAR-10 and CIFAR-100 in their official binary layout, memory-mapped.

A file is a sequence of records without a header: the label in one byte (CIFAR-100: two, the coarse and the fine one),
then 32×32 pixels row by row, 1,024 bytes of red, then green, then blue.

Source: Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images"; the description beside the archives.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from seqba.data.files import open_file, read_lines
from seqba.data.fingerprint import fingerprint
from seqba.data.image_batch import ImageBatch, Pixels, Rows, check_rows
from seqba.errors import UserError, quoted

SIDE = 32
PIXEL_BYTES = 3 * SIDE * SIDE
AGAIN = "make the folder again with data_prep/cifar.py"


@dataclass(frozen=True)
class Layout:
    """Layout of one of the two sets in its folder.

    Attributes:
        title: its name to a reader.
        folder: the folder that its archive holds.
        train: files of the training pictures, in order.
        test: file of the test pictures.
        names: file of the class names, one a line.
        kinds: how many labels there are, for each label byte of a record; the last one is the class.
    """

    title: str
    folder: str
    train: tuple[str, ...]
    test: str
    names: str
    kinds: tuple[int, ...]

    @property
    def record_bytes(self) -> int:
        """3,073 or 3,074."""
        return len(self.kinds) + PIXEL_BYTES

    @property
    def files(self) -> tuple[str, ...]:
        """All that the set needs."""
        return (*self.train, self.test, self.names)


CIFAR10 = Layout(
    title="CIFAR-10",
    folder="cifar-10-batches-bin",
    train=tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
    test="test_batch.bin",
    names="batches.meta.txt",
    kinds=(10,),
)
CIFAR100 = Layout(
    title="CIFAR-100",
    folder="cifar-100-binary",
    train=("train.bin",),
    test="test.bin",
    names="fine_label_names.txt",
    kinds=(20, 100),
)


PICKLES = (("data_batch_1",), ("batches.meta",), ("meta", "train"))
"""Files that show the archives with Python's pickles. A file called meta alone may be anything."""


class Cifar:
    """A split of CIFAR; the files are mapped, so that only the pages of the pictures in use are in memory.

    Opening reads every label. Records are shorter than a page, so that this also brings the whole file into the page
    cache, where later reads in random order find it.

    Args:
        folder: where the files are.
        split: `train` or `test`.
        layout: which of the two sets it is.

    Attributes:
        classes: ten names, or the hundred fine ones.
        name: for messages.
        side: 32.

    Raises:
        UserError: for another split; a missing, empty or truncated file; a label that no class has; class names that
            aren't as many as there are classes.
    """

    side: int | None = SIDE

    def __init__(self, folder: Path, split: str, layout: Layout) -> None:
        if split not in ("train", "test"):
            raise UserError(
                f"{layout.title} has no split {quoted(split)}; its pictures are train and test: --valid-subset test "
                "reports on the test pictures, as the paper does; --hold-out N keeps N training pictures apart as "
                "held-out"
            )
        self.name = f"{layout.title} {split} ({folder})"
        self.classes: Sequence[str] = _read_names(folder / layout.names, layout.kinds[-1])
        files = layout.train if split == "train" else (layout.test,)
        self._files = [folder / file for file in files]
        parts = [_map_records(file, layout) for file in self._files]
        self._pixels = [records[:, len(layout.kinds) :] for records in parts]
        self._labels = np.concatenate([records[:, len(layout.kinds) - 1] for records in parts]).astype(np.int64)
        self._starts = np.cumsum([0, *map(len, parts)])

    def __len__(self) -> int:
        """Number of pictures: 50,000 or 10,000."""
        return len(self._labels)

    @property
    def labels(self) -> Rows:
        """(N,) int64, all labels."""
        return self._labels

    def fingerprint(self) -> str:
        """Digest of the files, the same wherever they lie."""
        return fingerprint(self._files)

    def read(self, rows: Rows) -> ImageBatch:
        """Copies the pictures of the given numbers (B,), in that order: images (B, 3, 32, 32)."""
        check_rows(rows, len(self), self.name)
        pixels = np.empty((len(rows), PIXEL_BYTES), dtype=np.uint8)
        part_of = np.searchsorted(self._starts, rows, side="right") - 1
        for part, source in enumerate(self._pixels):
            places = np.flatnonzero(part_of == part)
            pixels[places] = source[rows[places] - self._starts[part]]
        return ImageBatch(
            images=torch.from_numpy(pixels).view(-1, 3, SIDE, SIDE),
            sizes=torch.full((len(rows), 2), SIDE),
            labels=torch.from_numpy(self._labels[rows]),
        )


def find_cifar(folder: Path, *, whole: bool = False) -> tuple[Path, Layout] | None:
    """Folder in which CIFAR lies, and which one it is: itself, or in the subfolder that the official archive makes.

    Args:
        folder: the folder.
        whole: count a set only if all of its files are there. Otherwise, where no set is whole, one of the files is
            enough to tell, and `Cifar` complains about those that are missing.

    Raises:
        UserError: when both sets are there, or only the pickled files of another archive.
    """
    places = [(place, layout) for layout in (CIFAR10, CIFAR100) for place in (folder, folder / layout.folder)]
    found = [(place, layout) for place, layout in places if all((place / file).is_file() for file in layout.files)]
    if not found and not whole:
        found = [(place, layout) for place, layout in places if any((place / file).is_file() for file in layout.files)]
    if len(found) > 1:
        raise UserError(f"{folder} holds {' and '.join(str(place) for place, _ in found)}: give one of these folders")
    if not found and not whole and any(all((folder / file).is_file() for file in files) for files in PICKLES):
        raise UserError(
            f"{folder} holds CIFAR as Python pickles, which could run code when they are read: fetch the binary "
            "version with data_prep/cifar.py"
        )
    return found[0] if found else None


def _read_names(path: Path, count: int) -> list[str]:
    """The class names; the official file of CIFAR-10 ends with an empty line."""
    names = [line.strip() for line in read_lines(path, "class names", AGAIN) if line.strip()]
    if len(names) != count:
        raise UserError(f"class names {path}: {len(names)} names, not {count}; {AGAIN}")
    return names


def _map_records(path: Path, layout: Layout) -> Pixels:
    """A file as (n, record_bytes), checked."""
    with open_file(path, "picture file", AGAIN) as file:
        length = file.seek(0, 2)
    size = layout.record_bytes
    if not length or length % size:
        problem = "empty" if not length else "truncated or not of this layout"
        raise UserError(
            f"picture file {path} is {problem}: {length:,} bytes are not a whole number of {layout.title}'s records "
            f"of {size:,} bytes; {AGAIN}"
        )
    records: Pixels = np.memmap(path, dtype=np.uint8, mode="r").reshape(-1, size)
    for column, count in enumerate(layout.kinds):
        labels = np.asarray(records[:, column])
        if int(labels.max()) >= count:
            row = int(np.argmax(labels >= count))
            raise UserError(
                f"picture file {path}, picture {row}: label {int(labels[row])} is beyond the {count} of "
                f"{layout.title}; the file is damaged or of another set: {AGAIN}"
            )
    return records
