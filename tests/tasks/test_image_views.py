from __future__ import annotations

import pytest
import torch
from torch import Tensor

from seqba.core import Noise, noise_context
from seqba.nn import ColourJitter, Cutout, HorizontalFlip, Normalize, RandomCrop, RandomWindow
from seqba.tasks.image_options import ViewOptions
from seqba.tasks.image_views import evaluation_decode_size, evaluation_view, training_view

MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


def pictures(rows: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (rows, 3, height, width), dtype=torch.uint8, generator=generator)
    return images, torch.tensor([[height, width]]).expand(rows, 2)


def normalised(images: Tensor) -> Tensor:
    return (images.float() / 255 - MEAN) / STD


def test_evaluation_sees_the_middle() -> None:
    images, sizes = pictures(2, 20, 30)
    torch.testing.assert_close(
        evaluation_view(16)(images, sizes), normalised(images[:, :, 2:18, 7:23]), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize(
    ("options", "kinds"),
    [
        (ViewOptions(), [HorizontalFlip, Normalize]),
        (ViewOptions(cutout=8), [HorizontalFlip, Normalize, Cutout]),
        (
            ViewOptions(augmentation="resized-crop", colour_jitter=(0.1, 0.2, 0.3)),
            [HorizontalFlip, ColourJitter, Normalize],
        ),
        (ViewOptions(augmentation="none", cutout=8), [Normalize, Cutout]),
    ],
)
def test_what_is_done_and_in_which_order(options: ViewOptions, kinds: list[type]) -> None:
    view = training_view(options, 16)
    assert [type(change) for change in view.changes] == kinds
    with noise_context(Noise(0, 1, 0, (0, 1))):
        seen = view(*pictures(4, 16, 16))
    assert seen.shape == (4, 3, 16, 16)
    assert seen.dtype == torch.float32


def test_the_options_reach_the_crop() -> None:
    view = training_view(ViewOptions(crop_padding=2), 16)
    assert isinstance(view.window, RandomCrop)
    assert (view.window.size, view.window.padding) == (16, 2)


def test_crops_of_pictures_of_different_sizes_are_as_of_resized_ones() -> None:
    view = training_view(ViewOptions(crop_padding=2, decode_size=20), 16, equal=False)
    assert isinstance(view.window, RandomWindow)
    assert (view.window.size, view.window.shorter, view.window.padding) == (16, 20, 2)


@pytest.mark.parametrize(
    ("options", "size", "expected"),
    [
        (ViewOptions(), 32, 256),
        (ViewOptions(augmentation="none", decode_size=300), 224, 300),
        (ViewOptions(augmentation="resized-crop"), 224, 256),
        (ViewOptions(augmentation="resized-crop", decode_size=400), 224, 256),
        (ViewOptions(augmentation="resized-crop", decode_size=240), 224, 240),
        (ViewOptions(augmentation="resized-crop", decode_size=400), 64, 73),
        (ViewOptions(augmentation="resized-crop", decode_size_valid=288), 224, 288),
    ],
)
def test_the_middle_has_its_usual_scale_however_training_is_decoded(
    options: ViewOptions, size: int, expected: int
) -> None:
    assert evaluation_decode_size(options, size) == expected


def test_a_view_follows_the_pictures_to_their_device() -> None:
    images, sizes = pictures(2, 16, 16)
    view = training_view(ViewOptions(), 16)
    assert view(images.to("meta"), sizes.to("meta")).device.type == "meta"
    assert {buffer.device.type for buffer in view.buffers()} == {"meta"}


def test_cutout_comes_last_so_that_its_square_is_the_mean_colour() -> None:
    images, sizes = pictures(2, 32, 32)
    with noise_context(Noise(0, 1, 0, (0,))):
        seen = training_view(ViewOptions(augmentation="none", cutout=16), 32)(images, sizes)
    blank = (seen == 0).all(dim=1)  # (R, H, W)
    assert (blank.sum(dim=(1, 2)) >= 64).all()
    kept = ~blank.unsqueeze(1).expand_as(seen)
    torch.testing.assert_close(seen[kept], normalised(images)[kept], rtol=1e-5, atol=1e-5)
