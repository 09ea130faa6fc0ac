"""Pictures in a folder per split and, in it, a folder per class, as ImageNet's are laid out."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import numpy as np

from seqba.data.fingerprint import fingerprint
from seqba.data.image_batch import ImageBatch, Rows, check_rows, pack
from seqba.data.image_decoding import SUFFIXES, decode, load_pillow, read_size
from seqba.errors import UserError, quoted
from seqba.extras import progress_bar

NAMED = 10
FINGERPRINTED = 64
"""Number of pictures whose content tells one set from another of the same names."""

LABELS_FROM = "train"
"""The split whose classes number the labels."""


class ImageFolder:
    """A split in SPLIT/CLASS/…/PICTURE; pictures are decoded when they are read.

    Classes are the folders of `train`, sorted by name, and every other split must have the same. Pictures of a class
    may lie in folders of it; they are sorted by path, and links are followed. Names that begin with a dot and files
    that don't end as pictures do are passed over.

    Args:
        folder: holds a folder per split.
        split: which one.
        decode_size: pixels that the shorter side is shrunk to (see `seqba.data.image_decoding.decode`).

    Attributes:
        classes: their names.
        name: for messages.

    Raises:
        ValueError: if `decode_size` < 1.
        UserError: without Pillow; for a split that isn't there, one whose classes are not those of `train`, or a class
            without pictures.
    """

    def __init__(self, folder: Path, split: str, *, decode_size: int) -> None:
        if decode_size < 1:
            raise ValueError(f"decode_size is {decode_size}; it must be at least 1")
        load_pillow()
        self.name = f"{split} of {folder}"
        self.decode_size = decode_size
        self._root = folder / split
        self.classes: Sequence[str] = _find_classes(folder, LABELS_FROM)
        if split != LABELS_FROM:
            _check_classes(self._root, _find_classes(folder, split), folder / LABELS_FROM, self.classes)
        self._paths, counts = _list_pictures(self._root, self.classes)
        self._labels = np.repeat(np.arange(len(self.classes)), counts)

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self._labels)

    @property
    def labels(self) -> Rows:
        """(N,) int64, all labels."""
        return self._labels

    @functools.cached_property
    def side(self) -> int | None:
        """Shorter side of the pictures in pixels, where all have one size and aren't shrunk; else None.

        Reads the heads of all files the first time, or up to the first that differs; a bar on a terminal meanwhile.

        Raises:
            UserError: for a file that is no picture.
        """
        size = read_size(self.path(0))
        if min(size) > self.decode_size:
            return None
        rows = range(1, len(self))
        with progress_bar()(
            rows, desc=f"Sizes of {self._root}", unit="img", file=sys.stderr, leave=False, disable=None
        ) as bar:
            return min(size) if all(read_size(self.path(row)) == size for row in bar) else None

    def path(self, row: int) -> str:
        """The file of a picture."""
        return os.path.join(self._root, self._paths[row])

    def fingerprint(self) -> str:
        """Digest of all names and of the content of some pictures, evenly spread; the same wherever they lie."""
        rows = np.unique(np.linspace(0, len(self) - 1, FINGERPRINTED, dtype=np.int64)).tolist()
        return fingerprint((Path(self.path(row)) for row in rows), names=self._paths.tobytes())

    def read(self, rows: Rows) -> ImageBatch:
        """Decodes the pictures of the given numbers (B,), in that order.

        Raises:
            UserError: naming the file that can't be decoded.
        """
        check_rows(rows, len(self), self.name)
        return pack([decode(self.path(row), self.decode_size) for row in rows.tolist()], self._labels[rows])


class Paths:
    """Many paths as one array of bytes.

    A list of 1.28 million strings would be copied by every worker that is forked: merely looking at a string writes its
    reference count, and the page that it lies on is then the worker's own. Arrays have no such counts. They also take
    less: 30 bytes a path of ImageNet rather than 90 and more.

    Args:
        names: the paths, as the file system spells them.
    """

    def __init__(self, names: Iterable[bytes]) -> None:
        joined = bytearray()
        ends = [0]
        for name in names:
            joined += name
            ends.append(len(joined))
        self._bytes = np.frombuffer(bytes(joined), dtype=np.uint8)
        self._ends = np.array(ends, dtype=np.int64)

    def __len__(self) -> int:
        """Number of paths."""
        return len(self._ends) - 1

    def tobytes(self) -> bytes:
        """All of them, and where each ends."""
        return self._bytes.tobytes() + self._ends.tobytes()

    def __getitem__(self, row: int) -> str:
        """One path."""
        return os.fsdecode(self._bytes[self._ends[row] : self._ends[row + 1]].tobytes())


def find_splits(folder: Path) -> list[str]:
    """The names of the folders in a folder that hold folders themselves, as splits hold classes; sorted.

    Hidden ones don't count, and neither do those that cannot be read (lost+found).

    Raises:
        UserError: if `folder` itself cannot be read.
    """
    splits = []
    for name in _folders(folder):
        with suppress(UserError):
            splits += [name] if _folders(folder / name) else []
    return splits


def _folders(folder: Path) -> list[str]:
    """The names of the folders in a folder that aren't hidden, sorted."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if entry.name[0] != "." and entry.is_dir())
    except OSError as error:
        _refuse(error)


def _find_classes(folder: Path, split: str) -> list[str]:
    """The names of a split's class folders, sorted."""
    if not (folder / split).is_dir():
        needed = f", whose classes number the labels ({folder / split}/CLASS/…)" if split == LABELS_FROM else ""
        have = _folders(folder)
        listed = ", ".join(have[:NAMED]) + (", …" if len(have) > NAMED else "")
        raise UserError(f"{folder} has no split {quoted(split)}{needed}; its folders are: {listed or 'none'}")
    classes = _folders(folder / split)
    if not classes:
        raise UserError(f"{folder / split} holds no class folders: pictures lie in {folder / split}/CLASS/")
    return classes


def _check_classes(root: Path, found: Sequence[str], train: Path, classes: Sequence[str]) -> None:
    for names, where, other in ((found, root, set(classes)), (classes, train, set(found))):
        if only := [name for name in names if name not in other]:
            listed = ", ".join(only[:NAMED]) + (f" and {len(only) - NAMED} more" if len(only) > NAMED else "")
            raise UserError(
                f"{root} and {train} must have folders for the same classes, but these are in {where} alone: {listed}"
            )


def _list_pictures(root: Path, classes: Sequence[str]) -> tuple[Paths, list[int]]:
    """All pictures of a split, class by class, and how many each class has; a bar on a terminal while it goes."""
    counts: list[int] = []

    def listed() -> Iterator[bytes]:
        for name in progress_bar()(
            classes, desc=f"Listing {root}", unit="class", file=sys.stderr, leave=False, disable=None
        ):
            found = sorted(_walk(root, name))
            if not found:
                raise UserError(
                    f"class {root / name} holds no pictures (files that end in {', '.join(SUFFIXES)}): put some in, or "
                    "remove the folder from all splits"
                )
            counts.append(len(found))
            yield from found

    return Paths(listed()), counts


def _walk(root: Path, name: str) -> Iterator[bytes]:
    """The pictures under a class folder, as paths from `root`; a folder that links lead to again is read once."""
    seen = set()
    for folder, folders, files in os.walk(root / name, followlinks=True, onerror=_refuse):
        folders[:] = [inner for inner in folders if inner[0] != "."]
        real = os.path.realpath(folder)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        place = os.path.relpath(folder, root)
        for file in files:
            if file[0] != "." and file.lower().endswith(SUFFIXES):
                yield os.fsencode(os.path.join(place, file))


def _refuse(error: OSError) -> NoReturn:
    raise UserError(f"folder {error.filename} cannot be read: {error.strerror}; check its permissions")
