"""Random resized crop and centre crop against a slow reading of each picture, and against Pillow."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from pictures import check_outside_an_update, check_the_draws, drawn_numbers, in_pass, random_pictures
from torch import Tensor

from seqba.nn.images.resized_crop import CenterCrop, RandomResizedCrop, RandomWindow, random_boxes, resample

TRIES = 10
SCALE, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)
Box = tuple[int, int, int, int]


def surrounded(sizes: Tensor, outside: int = 0) -> Tensor:
    """Random pictures of these sizes at the top left of one tensor, `outside` around them."""
    height, width = (sizes.amax(0) + torch.tensor([1, 2])).tolist()
    images = random_pictures(len(sizes), height, width)
    for row, (picture_height, picture_width) in enumerate(sizes.tolist()):
        images[row, :, picture_height:] = outside
        images[row, :, :, picture_width:] = outside
    return images


def random_sizes(rows: int, longest: int) -> Tensor:
    return torch.randint(1, longest, (rows, 2), generator=torch.Generator().manual_seed(longest))


def slow_box(
    numbers: np.ndarray, height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float]
) -> Box:
    """Top, left, height and width of the box, as torchvision's documentation and code define it."""
    for share, shape in zip(numbers[:TRIES].tolist(), numbers[TRIES : 2 * TRIES].tolist(), strict=True):
        area = height * width * (scale[0] + share * (scale[1] - scale[0]))
        aspect = ratio[0] * (ratio[1] / ratio[0]) ** shape
        box_width, box_height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < box_width <= width and 0 < box_height <= height:
            down, across = numbers[2 * TRIES :].tolist()
            top = math.floor(down * (height - box_height + 1))
            left = math.floor(across * (width - box_width + 1))
            return top, left, box_height, box_width
    box_height, box_width = height, width
    if width / height < ratio[0]:
        box_height = round(width / ratio[0])
    elif width / height > ratio[1]:
        box_width = round(height * ratio[1])
    return (height - box_height) // 2, (width - box_width) // 2, box_height, box_width


def slow_resize(box: np.ndarray, size: int) -> np.ndarray:
    """Bilinear between pixel centres, of a box (C, height, width) that was cut out first."""
    channels, height, width = box.shape
    result = np.zeros((channels, size, size))
    for i in range(size):
        y = min(max((i + 0.5) * height / size - 0.5, 0), height - 1)
        above, below, down = math.floor(y), min(math.floor(y) + 1, height - 1), y - math.floor(y)
        for j in range(size):
            x = min(max((j + 0.5) * width / size - 0.5, 0), width - 1)
            left, right, across = math.floor(x), min(math.floor(x) + 1, width - 1), x - math.floor(x)
            upper = (1 - across) * box[:, above, left] + across * box[:, above, right]
            lower = (1 - across) * box[:, below, left] + across * box[:, below, right]
            result[:, i, j] = (1 - down) * upper + down * lower
    return result


def test_a_copy_draws_the_same_in_any_company_and_every_key_differs() -> None:
    sizes = random_sizes(12, 20) + 5
    check_the_draws(RandomResizedCrop(6), surrounded(sizes), sizes)


def test_outside_an_update_it_is_ordinary() -> None:
    sizes = random_sizes(12, 20) + 5
    check_outside_an_update(RandomResizedCrop(6), surrounded(sizes), sizes)


@pytest.mark.parametrize(
    ("scale", "ratio"),
    [
        (SCALE, RATIO),
        ((0.9, 1.0), RATIO),  # many tries fail
        ((1.0, 1.0), (1.0, 1.0)),  # nothing fits but into a square
        ((0.2, 0.3), (2.0, 5.0)),
        ((0.2, 0.2), (0.2, 0.5)),
    ],
)
def test_boxes_are_those_of_the_definition(scale: tuple[float, float], ratio: tuple[float, float]) -> None:
    sizes = torch.cat([random_sizes(400, 20), random_sizes(400, 300), torch.tensor([[5, 60], [60, 5], [1, 1], [7, 7]])])
    numbers = drawn_numbers(len(sizes), 2 * TRIES + 2)
    boxes = random_boxes(torch.from_numpy(numbers), sizes, scale, ratio)
    assert boxes.dtype == torch.int64
    for row, (height, width) in enumerate(sizes.tolist()):
        assert tuple(boxes[row].tolist()) == slow_box(numbers[row], height, width, scale, ratio)


def test_boxes_keep_within_their_ranges_and_stand_anywhere() -> None:
    # Any of these boxes fits: √(½ · 4/3) < 1.
    sizes = torch.tensor([[1000, 1000]]).expand(4000, 2)
    boxes = random_boxes(torch.from_numpy(drawn_numbers(4000, 2 * TRIES + 2)), sizes, (0.08, 0.5), RATIO).double()
    top, left, height, width = boxes.unbind(1)
    share, shape = height * width / 1e6, width / height
    assert (share.min(), share.max()) == (pytest.approx(0.08, abs=2e-3), pytest.approx(0.5, abs=2e-3))
    assert share.mean().item() == pytest.approx(0.29, abs=0.01)
    assert share.std().item() == pytest.approx(0.42 / math.sqrt(12), abs=0.01)
    assert (shape.min(), shape.max()) == (pytest.approx(3 / 4, abs=5e-3), pytest.approx(4 / 3, abs=5e-3))
    assert shape.log().mean().item() == pytest.approx(0, abs=0.01)
    for place, room in ((top, 1000 - height), (left, 1000 - width)):
        assert (place >= 0).all()
        assert (place <= room).all()
        assert (place / room).mean().item() == pytest.approx(0.5, abs=0.02)
        assert (place == 0).any()
        assert (place == room).any()
    for one, other in ((top / (1000 - height), left / (1000 - width)), (share, shape), (top / (1000 - height), share)):
        assert abs(torch.corrcoef(torch.stack([one, other]))[0, 1].item()) < 0.06


@pytest.mark.parametrize("size", [1, 5, 8])
def test_a_crop_is_the_box_resized_between_pixel_centres(size: int) -> None:
    sizes = torch.cat([random_sizes(30, 14), torch.tensor([[1, 1], [1, 9], [9, 1], [3, 13]])])
    images = surrounded(sizes)
    crops = in_pass(RandomResizedCrop(size), images, sizes)
    assert crops.dtype == torch.float32
    assert crops.shape == (34, 3, size, size)
    numbers = drawn_numbers(34, 2 * TRIES + 2)
    for row, (height, width) in enumerate(sizes.tolist()):
        top, left, box_height, box_width = slow_box(numbers[row], height, width, SCALE, RATIO)
        box = images[row, :, top : top + box_height, left : left + box_width].double().numpy()
        np.testing.assert_allclose(crops[row].numpy(), slow_resize(box, size), atol=0.01)


def test_nothing_around_a_picture_or_its_box_is_seen() -> None:
    sizes = random_sizes(40, 14)
    crop = RandomResizedCrop(9)
    black, white = (in_pass(crop, surrounded(sizes, outside), sizes) for outside in (0, 255))
    assert torch.allclose(black, white, atol=0.01)


def test_a_box_of_the_results_size_is_copied() -> None:
    images = random_pictures(2, 9, 8)
    boxes = torch.tensor([[3, 1, 5, 5], [0, 3, 5, 5]])
    expected = torch.stack([images[0, :, 3:8, 1:6], images[1, :, 0:5, 3:8]]).float()
    assert torch.allclose(resample(images, boxes, 5), expected, atol=0.01)


def test_an_enlarged_box_is_pillows() -> None:
    pillow = pytest.importorskip("PIL.Image", reason="compares with Pillow; pip install -e .[vision]")
    images = random_pictures(8, 20, 16)
    boxes = torch.tensor(
        [[0, 0, 20, 16], [3, 2, 11, 9], [19, 15, 1, 1], [5, 0, 3, 16], [0, 4, 20, 2]] + [[2, 2, 7, 7]] * 3
    )
    ours = resample(images, boxes, 24).numpy()
    for row, (top, left, height, width) in enumerate(boxes.tolist()):
        picture = pillow.fromarray(images[row].permute(1, 2, 0).contiguous().numpy())
        box = picture.crop((left, top, left + width, top + height))
        theirs = np.asarray(box.resize((24, 24), pillow.Resampling.BILINEAR)).transpose(2, 0, 1)
        # Pillow rounds to whole levels after each of its two passes.
        assert np.abs(ours[row] - theirs).max() <= 1.02
        assert np.abs(ours[row] - theirs).mean() < 0.4


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_the_centre_is_cut_out_of_each_picture(dtype: torch.dtype) -> None:
    sizes = torch.tensor([[6, 6], [6, 13], [11, 6], [7, 9], [9, 8], [10, 11]])
    images = surrounded(sizes).to(dtype)
    before = images.clone()
    module = CenterCrop(6)
    crops = module(images, sizes)
    assert crops.dtype == dtype
    for row, (height, width) in enumerate(sizes.tolist()):
        top, left = round((height - 6) / 2), round((width - 6) / 2)
        assert torch.equal(crops[row], images[row, :, top : top + 6, left : left + 6])
    assert torch.equal(module.eval()(images, sizes), crops)
    filling = images[5:, :, :10, :11]
    assert torch.equal(module(filling, sizes[5:]), crops[5:])
    assert torch.equal(images, before)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("rows", [slice(0, 3), slice(0, 6)])
def test_the_largest_square_of_a_smaller_picture_is_enlarged(dtype: torch.dtype, rows: slice) -> None:
    sizes = torch.tensor([[5, 9], [4, 3], [1, 2], [6, 7], [8, 6], [5, 6]])[rows]
    images = surrounded(sizes, outside=255).to(dtype)
    crops = CenterCrop(6)(images, sizes)
    assert crops.dtype == dtype
    for row, (height, width) in enumerate(sizes.tolist()):
        side = min(height, width, 6)
        top, left = round((height - side) / 2), round((width - side) / 2)
        square = images[row, :, top : top + side, left : left + side].float()
        expected = torch.nn.functional.interpolate(square[None], size=6, mode="bilinear")[0]
        # Places are rounded, and bytes with them.
        assert (crops[row].float() - expected).abs().max() <= (0.51 if dtype == torch.uint8 else 0.01)


def test_sizes_that_do_not_fit_are_refused() -> None:
    images = random_pictures(2, 8, 9)
    for module in (RandomResizedCrop(4), CenterCrop(4)):
        with pytest.raises(ValueError, match=r"sizes is \(2,\); 2 pictures need"):
            module(images, torch.tensor([8, 9]))
        with pytest.raises(ValueError, match=r"sizes say up to 9 × 8, but the pictures' tensor holds 8 × 9"):
            module(images, torch.tensor([[8, 8], [9, 8]]))
        with pytest.raises(ValueError, match=r"\(rows, channels, height, width\)"):
            module(images[0], torch.tensor([[8, 9]]))
        with pytest.raises(ValueError, match="a side of 0; it must be at least 1"):
            module(images, torch.tensor([[8, 9], [0, 9]]))


def test_impossible_settings_are_refused() -> None:
    for kind in (RandomResizedCrop, CenterCrop):
        with pytest.raises(ValueError, match="size is 0; it must be at least 1"):
            kind(0)
    for scale in ((0.0, 1.0), (0.5, 0.4), (0.5, 1.5)):
        with pytest.raises(ValueError, match="two rising shares"):
            RandomResizedCrop(4, scale=scale)
    for ratio in ((0.0, 1.0), (2.0, 1.0)):
        with pytest.raises(ValueError, match="two rising numbers above 0"):
            RandomResizedCrop(4, ratio=ratio)


def test_windows_are_those_of_pictures_resized_before() -> None:
    """Against a slow reading of each picture: resized to a shorter side of 20 where it is smaller, windows of 16."""
    sizes = torch.tensor([[20, 30], [31, 20], [10, 14], [13, 13], [5, 40], [20, 20]])
    images = surrounded(sizes, outside=255)
    module = RandomWindow(16, 20)
    cut = in_pass(module, images, sizes)
    assert (cut.shape, cut.dtype) == ((6, 3, 16, 16), torch.uint8)
    numbers = drawn_numbers(6, 2)
    for row, (height, width) in enumerate(sizes.tolist()):
        side = round(16 * min(height, width, 20) / 20)
        top = math.floor(np.float32(numbers[row, 0]) * np.float32(height - side + 1))
        left = math.floor(np.float32(numbers[row, 1]) * np.float32(width - side + 1))
        box = images[row, :, top : top + side, left : left + side].numpy()
        assert abs(cut[row].numpy() - slow_resize(box.astype(float), 16)).max() <= (0 if side == 16 else 0.51)


def test_windows_of_padded_pictures_see_zeros() -> None:
    images, sizes = torch.full((200, 1, 12, 12), 7, dtype=torch.uint8), torch.full((200, 2), 12)
    cut = in_pass(RandomWindow(12, 12, padding=3), images, sizes)
    rows, columns = (cut > 0).any(dim=3).sum(dim=(1, 2)), (cut > 0).any(dim=2).sum(dim=(1, 2))
    assert set(rows.tolist()) == set(columns.tolist()) == {9, 10, 11, 12}
    small = in_pass(RandomWindow(12, 24, padding=4), images, sizes)  # as if they were 24 wide: 2 of their own pixels
    inside = (small == 7).flatten(1).all(dim=1)
    assert inside.any()
    assert not inside.all()
    whole = in_pass(RandomWindow(12, 24), images, sizes)
    assert torch.equal(whole, torch.full_like(whole, 7))


def test_windows_keep_the_promises_of_noise() -> None:
    sizes = torch.tensor([[20, 30], [31, 20], [10, 14], [13, 13], [25, 40]])
    check_the_draws(RandomWindow(12, 20, padding=2), surrounded(sizes), sizes)
    check_outside_an_update(RandomWindow(12, 20), surrounded(sizes), sizes)
    for size, shorter, padding in ((0, 8, 0), (9, 8, 0), (8, 8, -1)):
        with pytest.raises(ValueError, match=f"size is {size}, shorter {shorter} and padding {padding}"):
            RandomWindow(size, shorter, padding)
