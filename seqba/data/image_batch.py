"""Pictures with their labels as a batch, and what gives such batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Rows = npt.NDArray[np.int64]
Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class ImageBatch:
    """B pictures on the CPU, as they were decoded: everything random is done to them later, on the device.

    Attributes:
        images: (B, 3, H, W) uint8, red, green, blue; H and W are those of the highest and of the widest picture of the
            batch. Pictures stand at the top left, zeros elsewhere.
        sizes: (B, 2) int64, height and width of each picture.
        labels: (B,) int64, from 0.
    """

    images: Tensor
    sizes: Tensor
    labels: Tensor


class ImageSource(Protocol):
    """One split of a set of labelled pictures.

    Attributes:
        classes: names; a picture of label i shows a classes[i].
        name: what the split is called in a message.
    """

    classes: Sequence[str]
    name: str

    @property
    def side(self) -> int | None:
        """Shorter side of the pictures in pixels, where all have one size and aren't shrunk; else None."""
        ...

    def __len__(self) -> int:
        """Number of pictures."""
        ...

    def fingerprint(self) -> str:
        """Digest of the pictures, the same wherever they lie."""
        ...

    def read(self, rows: Rows) -> ImageBatch:
        """The pictures of the given numbers (B,), in that order, which may be any."""
        ...


def pack(pictures: Sequence[Pixels], labels: Rows) -> ImageBatch:
    """Pictures of different sizes as one batch.

    Args:
        pictures: (height, width, 3) each, as decoders give them.
        labels: (B,).
    """
    sizes = np.array([picture.shape[:2] for picture in pictures], dtype=np.int64).reshape(-1, 2)
    height, width = sizes.max(axis=0, initial=0).tolist()
    images = np.zeros((len(pictures), 3, height, width), dtype=np.uint8)
    for image, picture in zip(images, pictures, strict=True):
        image[:, : picture.shape[0], : picture.shape[1]] = picture.transpose(2, 0, 1)
    return ImageBatch(
        torch.from_numpy(images), torch.from_numpy(sizes), torch.from_numpy(np.array(labels, dtype=np.int64))
    )


def check_rows(rows: Rows, length: int, name: str) -> None:
    """Refuses numbers that no picture has: NumPy would count negative ones from the end.

    Raises:
        IndexError: naming the first.
    """
    outside = (rows < 0) | (rows >= length)
    if outside.any():
        raise IndexError(f"picture {int(rows[outside][0])} of {name}, which has {length}")
