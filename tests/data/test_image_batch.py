"""Pictures of different sizes in one batch."""

from __future__ import annotations

import numpy as np
import torch

from seqba.core import replicate
from seqba.data.image_batch import pack


def test_pictures_stand_top_left_in_zeros() -> None:
    random = np.random.default_rng(1)
    high, wide = (random.integers(1, 256, shape, dtype=np.uint8) for shape in ((5, 2, 3), (3, 4, 3)))
    batch = pack([high, wide], np.array([7, 1]))
    assert batch.images.shape == (2, 3, 5, 4)
    assert batch.sizes.tolist() == [[5, 2], [3, 4]]
    assert batch.labels.tolist() == [7, 1]
    for image, given in zip(batch.images, (high, wide), strict=True):
        height, width, _ = given.shape
        assert torch.equal(image[:, :height, :width].permute(1, 2, 0), torch.from_numpy(given))
        assert int(image.count_nonzero()) == given.size  # zeros elsewhere
    assert [batch.images.dtype, batch.sizes.dtype, batch.labels.dtype] == [torch.uint8, torch.int64, torch.int64]


def test_no_pictures_are_an_empty_batch() -> None:
    batch = pack([], np.array([], dtype=np.int64))
    assert (batch.images.shape, batch.sizes.shape, batch.labels.shape) == ((0, 3, 0, 0), (0, 2), (0,))


def test_the_core_repeats_the_rows() -> None:
    picture = np.ones((2, 2, 3), dtype=np.uint8)
    batch = replicate(pack([picture, picture * 2], np.array([0, 1])), 3)
    assert batch.labels.tolist() == [0, 1, 0, 1, 0, 1]
    assert batch.images[:, 0, 0, 0].tolist() == [1, 2, 1, 2, 1, 2]
    assert batch.sizes.shape == (6, 2)
