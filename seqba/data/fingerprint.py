"""Fingerprint of files: whether data are those of an earlier run, without reading all of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from seqba.data.files import open_file

BLOCK_BYTES = 1 << 14
BLOCKS = 64
"""A file of up to 1 MiB is read whole; of a longer one so many blocks, evenly spread from its first byte to its last.
"""


def fingerprint(files: Iterable[Path], names: bytes = b"") -> str:
    """Digest of some files' lengths and content, the same wherever they lie.

    A line more or less anywhere changes the length of a corpus, and moves what is behind it; another text of the same
    lengths differs in nearly every block. What can be missed is a stretch of a long file that was replaced by one of
    the same length between two blocks, a 63rd of the file at most: 16 MB of 1 GB. It costs at most 1 MiB of reading a
    file, whatever its length.

    Args:
        files: in an order that means something; those that aren't there are left out.
        names: what else belongs to the data, such as the names of files that aren't looked into.

    Raises:
        UserError: for a file that can't be read.
    """
    digest = hashlib.sha256(names)
    for path in files:
        if not path.exists():
            continue
        with open_file(path, "data file") as file:
            length = file.seek(0, 2)
            digest.update(length.to_bytes(8, "little"))
            for start in _block_starts(length):
                file.seek(start)
                digest.update(file.read(BLOCK_BYTES))
    return digest.hexdigest()


def split_fingerprint(
    folders: Sequence[Path], subset: str, train_subset: str, files: Callable[..., Iterable[Path]]
) -> str:
    """Digest of a split of data-bins: of all of them where it is learned from, else of the first one.

    Args:
        folders: the data-bins of a run.
        subset: the split.
        train_subset: the split that is learned from.
        files: `files(folder, subset, combine=...)` → those of the split in a folder; `combine` takes along `train1`,
            `train2`, …, as training does.
    """
    learned = subset == train_subset
    return fingerprint(
        file for folder in (folders if learned else folders[:1]) for file in files(folder, subset, combine=learned)
    )


def _block_starts(length: int) -> Iterable[int]:
    if length <= BLOCKS * BLOCK_BYTES:
        return range(0, length, BLOCK_BYTES)
    return [number * (length - BLOCK_BYTES) // (BLOCKS - 1) for number in range(BLOCKS)]
