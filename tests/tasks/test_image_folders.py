"""Tasks of pictures in folders, of one size or of many."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from image_tasks import open_task, seen_by_model
from PIL import Image
from toy_images import picture, write_folders

from seqba.data.images import open_images
from seqba.errors import UserError
from seqba.nn import RandomCrop
from seqba.noise.context import noise_context
from seqba.noise.noise import Noise


def test_one_class_is_refused(tmp_path: Path) -> None:
    folder = write_folders(tmp_path)
    for split in ("train", "val"):
        shutil.rmtree(folder / split / "dog")
    with pytest.raises(UserError, match=r"train of .* has pictures of one class, of which nothing can be learned"):
        open_task(folder, rows=2, augmentation="resized-crop")


def test_pictures_smaller_than_the_window_are_validated_on(tmp_path: Path) -> None:
    task = open_task(write_folders(tmp_path), rows=2, augmentation="resized-crop", image_size=24)
    assert {tuple(images.shape) for images in seen_by_model(task)} == {(2, 3, 24, 24)}


def write_equal(folder: Path, *, width: int = 32, height: int = 32) -> Path:
    """CIFAR as PNGs, or Tiny ImageNet: two classes of pictures of one size."""
    for number, path in enumerate(sorted(write_folders(folder).rglob("*.png"))):
        picture(height, width, seed=number).save(path)
    return folder


@pytest.mark.parametrize(("width", "height"), [(32, 32), (64, 64), (40, 24)])
def test_folders_of_one_size_are_cropped_as_cifar_is(width: int, height: int, tmp_path: Path) -> None:
    task = open_task(write_equal(tmp_path, width=width, height=height), rows=2)
    side = min(width, height)
    assert task.state()["image_size"] == task.image_size == side
    window = task._training_view.window
    assert isinstance(window, RandomCrop)
    assert (window.size, window.padding) == (side, 4)
    seen = seen_by_model(task)
    assert {tuple(images.shape) for images in seen} == {(2, 3, side, side)}


def test_folders_of_one_size_and_cifar_are_seen_alike(pictures: Path, tmp_path: Path) -> None:
    cifar = open_task(pictures, rows=4)
    batch = cifar.epoch(1)[0]
    for row, image in enumerate(batch.images):
        for split in ("train", "val"):
            for label in ("cat", "dog"):
                (tmp_path / split / label).mkdir(parents=True, exist_ok=True)
                Image.fromarray(image.permute(1, 2, 0).numpy()).save(tmp_path / split / label / f"{row}.png")
    folder = open_task(tmp_path, rows=4)
    own = replace(open_images(tmp_path, "train", decode_size=256).read(np.arange(4)), labels=batch.labels)
    views = []
    for task, micro_batch in ((cifar, batch), (folder, own)):
        with noise_context(Noise(0, 1, 0, (0, 1))):
            images, sizes = (
                tensor.repeat(2, *[1] * (tensor.dim() - 1)) for tensor in (micro_batch.images, micro_batch.sizes)
            )
            views.append(task._training_view(images, sizes))
    assert torch.equal(views[0], views[1])


def test_windows_are_cut_from_pictures_of_different_sizes(tmp_path: Path) -> None:
    task = open_task(write_folders(tmp_path), rows=2, image_size=16, decode_size=18, crop_padding=0)
    assert {tuple(images.shape) for images in seen_by_model(task)} == {(2, 3, 16, 16)}
    assert task.validation("val")[0].sizes.amin(1).tolist() == [18, 18]  # of the scale of training's windows
    assert open_task(write_folders(tmp_path / "all"), rows=2).image_size == 224


def test_small_boxes_are_cut_from_larger_pictures_than_evaluation_sees(tmp_path: Path) -> None:
    options = {"augmentation": "resized-crop", "image_size": 14, "decode_size": 20}
    task = open_task(write_folders(tmp_path), rows=2, **options)
    assert task.epoch(1)[0].sizes.amin(1).tolist() == [20, 20]
    assert task.validation("val")[0].sizes.amin(1).tolist() == [16, 16]
    task = open_task(tmp_path, rows=2, **options, decode_size_valid=18)
    assert task.validation("val")[0].sizes.amin(1).tolist() == [18, 18]
