"""Pictures of a split: which of them, in what order, of which classes and size."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from seqba.data.batching import permutation
from seqba.data.images import ImageBatches, ImageSource, open_images
from seqba.data.names import name_bytes
from seqba.errors import UserError
from seqba.options import number_text
from seqba.tasks.image_options import HELD_OUT, ImageOptions, ViewOptions
from seqba.tasks.image_views import View, training_view

HOLD_OUT_SEED = 0


FOLDER_IMAGE_SIZE = 224
"""Pixels that the model sees of pictures of all sizes, where --image-size doesn't say."""


def classes_digest(classes: Sequence[str]) -> str:
    """Digest of the classes and their order: other ones would give the labels another meaning."""
    return hashlib.sha256(name_bytes("\0".join(classes))).hexdigest()


def open_split(
    folder: str | Path,
    subset: str,
    options: ImageOptions,
    *,
    train_subset: str,
    batch_size: int,
    decode_size: int,
) -> ImageBatches:
    """All pictures of a split, in order, `batch_size` at a time; the last batch may have fewer.

    Args:
        folder: with the pictures.
        subset: a split, or `HELD_OUT` where the options hold pictures out of `train_subset`.
        options: those of training.
        train_subset: the split that is learned from.
        batch_size: pictures of a batch.
        decode_size: pixels that the shorter side of a larger picture is shrunk to.

    Raises:
        UserError: for a split that isn't there, is empty or broken.
    """
    held_out = subset == HELD_OUT and options.hold_out > 0
    source = open_images(folder, train_subset if held_out else subset, decode_size=decode_size)
    rows = np.sort(hold_out_order(len(source))[: options.hold_out]) if held_out else np.arange(len(source))
    batches = np.split(rows, range(batch_size, len(rows), batch_size))
    return ImageBatches(source, batches, workers=options.num_workers)


def random_view(source: ImageSource, options: ViewOptions, size: int) -> View:
    """The view that the options describe of a source's pictures, `size` pixels wide and high.

    Raises:
        UserError: for a file that is no picture, where the sizes of all must be known.
    """
    return training_view(options, size, equal=options.augmentation != "crop" or source.side is not None)


def hold_out_order(count: int) -> npt.NDArray[np.int64]:
    """The order in which `--hold-out` takes pictures: a draw that doesn't depend on the run's seed."""
    return permutation(np.random.PCG64(HOLD_OUT_SEED), count)


def check_classes(name: str, classes: int, smoothing: float) -> None:
    """Refuses a single class, and labels that smoothing makes less likely than the other classes."""
    if classes < 2:
        raise UserError(f"{name} has pictures of one class, of which nothing can be learned: give it a second one")
    if smoothing * classes > classes - 1:
        raise UserError(
            f"--label-smoothing {number_text(smoothing)} would make the label of a picture the least likely of "
            f"{classes} classes: give less than {1 - 1 / classes:.3g}"
        )


def model_image_size(source: ImageSource, options: ImageOptions) -> int:
    """Side of the model's pictures: as asked for, or as they are, or the usual one for pictures of all sizes."""
    if options.image_size is not None and (options.augmentation != "crop" or source.side is None):
        return options.image_size  # without a look at each picture, where nothing depends on it
    if source.side is not None and (options.image_size or 0) > source.side:
        raise UserError(
            f"--image-size {options.image_size} is more than the {source.side} pixels of {source.name}, from which no "
            "such window can be cut: add --augmentation resized-crop, which enlarges"
        )
    if source.side is None and options.decode_size < FOLDER_IMAGE_SIZE:
        raise UserError(
            f"{source.name} has pictures of different sizes or larger than --decode-size {options.decode_size}, which "
            f"is less than the {FOLDER_IMAGE_SIZE} that the model sees of such pictures: give --image-size"
        )
    return options.image_size or source.side or FOLDER_IMAGE_SIZE
