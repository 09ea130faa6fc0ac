"""Random crop, flip, normalisation and cutout against a slow reading of each picture."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from pictures import check_outside_an_update, check_the_draws, drawn_numbers, in_pass, random_pictures
from torch import Tensor, nn

from seqba.nn.images.image_noise import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Cutout,
    HorizontalFlip,
    Normalize,
    RandomCrop,
    cut_windows,
    scale_to_integers,
)

MODULES = [
    pytest.param(RandomCrop(8, padding=4), torch.uint8, id="crop"),
    pytest.param(RandomCrop(5, padding=3), torch.float32, id="small crop"),
    pytest.param(HorizontalFlip(), torch.uint8, id="flip"),
    pytest.param(HorizontalFlip(0.3), torch.float32, id="flip, floating"),
    pytest.param(Cutout(4), torch.float32, id="cutout"),
    pytest.param(Cutout(3, holes=2), torch.float64, id="two holes"),
]


@pytest.mark.parametrize(("module", "dtype"), MODULES)
def test_a_copy_draws_the_same_in_any_company_and_every_key_differs(module: nn.Module, dtype: torch.dtype) -> None:
    images = random_pictures(24, 8, 11).to(dtype)
    check_the_draws(module, images)
    assert in_pass(module, images).dtype == dtype


@pytest.mark.parametrize(("module", "dtype"), MODULES)
def test_outside_an_update_it_is_ordinary(module: nn.Module, dtype: torch.dtype) -> None:
    check_outside_an_update(module.train(), random_pictures(24, 8, 11).to(dtype))
    module.train()


@pytest.mark.parametrize(("module", "dtype"), MODULES)
def test_channels_may_lie_innermost(module: nn.Module, dtype: torch.dtype) -> None:
    images = random_pictures(24, 8, 11).to(dtype)
    channels_last = images.contiguous(memory_format=torch.channels_last)
    assert torch.equal(in_pass(module, images), in_pass(module, channels_last))


@pytest.mark.parametrize(
    ("height", "width", "size", "padding"),
    [(8, 8, 8, 4), (7, 9, 6, 2), (9, 7, 11, 2), (5, 6, 5, 0), (5, 5, 9, 2), (3, 4, 1, 5), (3, 9, 3, 0)],
)
def test_a_crop_is_a_window_of_the_padded_picture(height: int, width: int, size: int, padding: int) -> None:
    images = random_pictures(40, height, width)
    crops = in_pass(RandomCrop(size, padding), images)
    assert crops.dtype == torch.uint8
    assert crops.shape == (40, 3, size, size)
    numbers = drawn_numbers(40, 2)
    for picture, crop, (down, across) in zip(images.numpy(), crops.numpy(), numbers, strict=True):
        top = math.floor(down * (height + 2 * padding - size + 1)) - padding
        left = math.floor(across * (width + 2 * padding - size + 1)) - padding
        for channel in range(3):
            for y in range(size):
                for x in range(size):
                    inside = 0 <= top + y < height and 0 <= left + x < width
                    expected = picture[channel, top + y, left + x] if inside else 0
                    assert crop[channel, y, x] == expected


def test_each_of_the_81_places_is_as_likely() -> None:
    # Row 4, column 4 of the crop is the picture's pixel at (top, left), and each pixel says where it is.
    places = torch.arange(81, dtype=torch.int16).view(1, 1, 9, 9).expand(81 * 300, 1, 9, 9)
    counts = in_pass(RandomCrop(9, padding=4), places)[:, 0, 4, 4].bincount(minlength=81)
    assert len(counts) == 81
    # χ² with 80 degrees of freedom: 80 ± 12.6.
    assert ((counts - 300).square().sum() / 300).item() == pytest.approx(80, abs=45)


def test_the_largest_number_below_one_gives_the_last_place() -> None:
    counts = torch.arange(1, 100_000)
    largest = torch.full(counts.shape, 1 - 2**-24)
    assert (largest < 1).all()
    assert torch.equal(scale_to_integers(largest, counts), counts - 1)
    assert scale_to_integers(torch.zeros(3), 5).tolist() == [0, 0, 0]


@pytest.mark.parametrize("p", [0.0, 0.25, 0.5, 1.0])
def test_a_flip_mirrors_a_picture_or_leaves_it(p: float) -> None:
    images = random_pictures(4000, 3, 5)
    flipped = in_pass(HorizontalFlip(p), images)
    mirrored = drawn_numbers(4000) < p
    assert mirrored.mean() == pytest.approx(p, abs=0.03)
    for picture, result, mirror in zip(images.numpy(), flipped.numpy(), mirrored, strict=True):
        assert np.array_equal(result, picture[:, :, ::-1] if mirror else picture)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64])
def test_normalised_levels_are_those_of_the_formula(dtype: torch.dtype) -> None:
    images = random_pictures(4, 6, 7).to(dtype)
    before = images.clone()
    module = Normalize()
    normal = module(images)
    assert normal.dtype == torch.float32
    levels = images.double().numpy() / 255
    for channel in range(3):
        expected = (levels[:, channel] - IMAGENET_MEAN[channel]) / IMAGENET_STD[channel]
        np.testing.assert_allclose(normal[:, channel].numpy(), expected, atol=1e-6)
    assert torch.equal(images, before)
    assert torch.equal(module.eval()(images), normal)


def test_normalisation_takes_other_channels_and_views_and_adds_nothing_to_the_state() -> None:
    module = Normalize(mean=[0.5], std=[0.25])
    images = random_pictures(1, 4, 5, channels=1).float().expand(3, 1, 4, 5)
    before = images.clone()
    torch.testing.assert_close(module(images), (images / 255 - 0.5) / 0.25)
    assert torch.equal(images, before)
    assert not module.state_dict()


@pytest.mark.parametrize(
    ("height", "width", "length", "holes"),
    [
        (8, 8, 4, 1),
        (7, 9, 4, 3),
        (9, 7, 5, 1),
        (6, 6, 1, 1),
        (4, 6, 12, 2),
        (6, 4, 12, 1),
        (5, 3, 40, 1),
        (32, 32, 16, 1),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_cutout_zeroes_clipped_squares(height: int, width: int, length: int, holes: int, dtype: torch.dtype) -> None:
    images = random_pictures(30, height, width).add(1).clamp_(min=1).to(dtype)
    cut = in_pass(Cutout(length, holes), images)
    assert cut.dtype == dtype
    numbers = drawn_numbers(30, holes, 2)
    for row in range(30):
        expected = images[row].clone()
        for down, across in numbers[row]:
            y, x = math.floor(down * height), math.floor(across * width)
            for i in range(max(0, y - length // 2), min(height, y + length // 2)):
                for j in range(max(0, x - length // 2), min(width, x + length // 2)):
                    expected[:, i, j] = 0
        assert torch.equal(cut[row], expected)


def test_every_pixel_is_as_likely_the_centre_of_a_square() -> None:
    # A square of side 2 ends at its centre: it is the last zero, down and across.
    images = torch.ones(25 * 400, 1, 5, 5)
    lost = in_pass(Cutout(2), images)[:, 0] == 0
    down = lost.any(2) * torch.arange(5)
    across = lost.any(1) * torch.arange(5)
    counts = (down.amax(1) * 5 + across.amax(1)).bincount(minlength=25)
    # χ² with 24 degrees of freedom: 24 ± 7.
    assert ((counts - 400).square().sum() / 400).item() == pytest.approx(24, abs=24)


def test_windows_are_cut_out_of_any_rows_of_any_view() -> None:
    images = random_pictures(6, 12, 10).float()[1:5, :, 2:, 1:]
    rows, tops, lefts = torch.tensor([3, 0, 3]), torch.tensor([0, 5, 2]), torch.tensor([6, 0, 1])
    windows = cut_windows(images, rows, tops, lefts, 3, 2)
    expected = [images[3, :, 0:3, 6:8], images[0, :, 5:8, 0:2], images[3, :, 2:5, 1:3]]
    assert torch.equal(windows, torch.stack(expected))


def test_the_last_window_of_the_last_picture_can_be_cut() -> None:
    images = random_pictures(2, 5, 4)
    last = cut_windows(images, torch.tensor([1]), torch.tensor([2]), torch.tensor([2]), 3, 2)
    assert torch.equal(last, images[1:, :, 2:, 2:])


def wrong_pictures(module: nn.Module, images: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        module(images)


def test_pictures_that_do_not_fit_are_refused() -> None:
    wrong_pictures(RandomCrop(8, padding=1), random_pictures(2, 5, 9), "8 × 8 doesn't fit into pictures of 5 × 9")
    wrong_pictures(RandomCrop(4), torch.zeros(3, 32, 32), r"\(rows, channels, height, width\), not \(3, 32, 32\)")
    wrong_pictures(HorizontalFlip(), torch.zeros(3, 32, 32), "pictures must be")
    wrong_pictures(Normalize(), torch.zeros(3, 32, 32), "pictures must be")
    wrong_pictures(Normalize(), torch.zeros(3, 1, 5, 5), "1 channels, but mean and std 3")
    wrong_pictures(Cutout(2), torch.zeros(3, 32, 32), "pictures must be")
    wrong_pictures(Cutout(2), random_pictures(2, 5, 9), "normalised pictures of a floating dtype, not torch.uint8")


def test_impossible_settings_are_refused() -> None:
    for size, padding in ((0, 4), (32, -1)):
        with pytest.raises(ValueError, match="a side of at least 1, padding at least 0"):
            RandomCrop(size, padding)
    for p in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match=r"it must be in \[0, 1\]"):
            HorizontalFlip(p)
    for length, holes in ((0, 1), (16, 0)):
        with pytest.raises(ValueError, match="both must be at least 1"):
            Cutout(length, holes)
    for mean, std in (([0.5], [0.5, 0.5]), ([0.5], [0.0])):
        with pytest.raises(ValueError, match="one number per channel, std above 0"):
            Normalize(mean, std)
