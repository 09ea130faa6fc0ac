"""Crops of pictures of different sizes: a random box resized to a square for training, the centre for evaluation.

Pictures of a batch stand in one tensor, each at the top left of its row with zeros elsewhere, and `sizes` says how
large each is. They were decoded to a shorter side near the crop's.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from seqba.nn.images.image_noise import check_images, cut_windows, draw_uniform, scale_to_integers

TRIES = 10
"""Boxes that are drawn for a picture before its centre is taken, as in torchvision."""


class RandomResizedCrop(nn.Module):
    """Cuts a box of random area, shape and place out of each picture and resizes it to `size` × `size`.

    The share of the picture's area is uniform on `scale`, the logarithm of width/height uniform on that of `ratio`.
    Sides are rounded to whole pixels; the first of 10 such boxes that fits is put at a uniformly random place. If none
    fits, it is the largest box at the picture's centre whose shape is in `ratio`.

    Resampling is bilinear between pixel centres and sees the box alone, as if it were cut out first. It isn't
    antialiased: an output pixel reads at most 2 × 2 input pixels, so that a box more than twice as large as `size` is
    sampled with gaps, where Pillow would average. From pictures decoded to a shorter side of 256, boxes for a size of
    224 are shrunk by 4/3 · 256/224 = 1.5 at most, and more than half of them are enlarged, a box of 8% of a square
    picture from 72 pixels. From 400 they are shrunk by 2.4 at most, and such a box has 113 pixels.

    Randomness: one box per row. Inside an update it is keyed by (seed, update, micro-batch, copy, site); outside one it
        comes
    from the global generator. In evaluation the pictures are returned as they are: see `CenterCrop`.

    Args:
        size: side of the result.
        scale: smallest and largest share of the area.
        ratio: smallest and largest width/height.

    Shape:
        (k·B, C, H, W) → (k·B, C, size, size), float32 of the same levels; uint8 or floating goes in. `sizes` is
        (k·B, 2) int64, height and width of each picture. k copies in the pass, copy-major.

    Raises:
        ValueError: if an argument is out of its range, or `sizes` doesn't fit the pictures (its numbers are checked on
            a CPU only: reading them would make a GPU wait).

    Source: Szegedy et al. 2015, section 6; boxes as torchvision's `RandomResizedCrop` defines them.
    """

    def __init__(
        self, size: int, scale: tuple[float, float] = (0.08, 1.0), ratio: tuple[float, float] = (3 / 4, 4 / 3)
    ) -> None:
        super().__init__()
        if size < 1:
            raise ValueError(f"size is {size}; it must be at least 1")
        if not 0 < scale[0] <= scale[1] <= 1:
            raise ValueError(f"scale is {scale}; it must be two rising shares of the area in (0, 1]")
        if not 0 < ratio[0] <= ratio[1]:
            raise ValueError(f"ratio is {ratio}; it must be two rising numbers above 0")
        self.size = size
        self.scale = scale
        self.ratio = ratio

    def forward(self, images: Tensor, sizes: Tensor) -> Tensor:
        """Crops `images` (k·B, C, H, W) whose heights and widths are `sizes` (k·B, 2)."""
        _check_sizes(images, sizes)
        if not self.training:
            return images
        numbers = draw_uniform(self, (len(images), 2 * TRIES + 2), images.device)
        return resample(images, random_boxes(numbers, sizes, self.scale, self.ratio), self.size)

    def extra_repr(self) -> str:
        """`size=224, scale=(0.08, 1.0), ratio=(0.75, 1.3333333333333333)`."""
        return f"size={self.size}, scale={self.scale}, ratio={self.ratio}"


class RandomWindow(nn.Module):
    """Cuts a window out of each picture at a uniformly random place, as if its shorter side were resized to `shorter`.

    What `RandomCrop` does to pictures of one size: pictures are surrounded with zeros, and the window is `size` ×
    `size` pixels of them. Of a picture whose shorter side is s < `shorter`, it is a box of size·s/shorter pixels, and
    padding likewise, resized by `resample`; shrinking larger ones is left to the decoder, and they count as `shorter`.

    Randomness: one place per row, keyed as in `RandomResizedCrop`. In evaluation the pictures are returned as they are.

    Args:
        size: side of the result.
        shorter: that pictures are resized to; at least `size`.
        padding: zeros on every side.

    Shape:
        (k·B, C, H, W) → (k·B, C, size, size) of the same dtype; enlarged bytes are rounded. `sizes` is (k·B, 2) int64,
        height and width of each picture. Whether any is small is asked of their device, which makes a GPU wait.

    Raises:
        ValueError: if `size` < 1, `shorter` < `size` or `padding` < 0, or `sizes` doesn't fit the pictures (its numbers
            are checked on a CPU only).

    Source: Resize(256), RandomCrop(224) of torchvision, by which the released code of Hoffer et al. 2020 trains AlexNet
    and MobileNet.
    """

    def __init__(self, size: int, shorter: int, padding: int = 0) -> None:
        super().__init__()
        if size < 1 or shorter < size or padding < 0:
            raise ValueError(
                f"size is {size}, shorter {shorter} and padding {padding}; a window has a side of at least 1, the "
                "picture at least that of the window, padding at least 0"
            )
        self.size = size
        self.shorter = shorter
        self.padding = padding

    def forward(self, images: Tensor, sizes: Tensor) -> Tensor:
        """Crops `images` (k·B, C, H, W) whose heights and widths are `sizes` (k·B, 2)."""
        _check_sizes(images, sizes)
        if not self.training:
            return images
        numbers = draw_uniform(self, (len(images), 2), images.device)
        shares = (sizes.amin(1).clamp(max=self.shorter) / self.shorter)[:, None]  # (R, 1): 1 where nothing is enlarged
        sides, margins = (self.size * shares).round().long().clamp(min=1), (self.padding * shares).round().long()
        places = scale_to_integers(numbers, sizes + 2 * margins - sides + 1) + self.padding - margins
        padded = nn.functional.pad(images, (self.padding,) * 4)
        return _cut_or_enlarge(padded, places, sides.squeeze(1), self.size)

    def extra_repr(self) -> str:
        """`size=224, shorter=256, padding=0`."""
        return f"size={self.size}, shorter={self.shorter}, padding={self.padding}"


class CenterCrop(nn.Module):
    """Cuts `size` × `size` pixels out of the centre of each picture, in training and in evaluation.

    The box begins at (height − size)/2, rounded to the even number at a half, and columns likewise, as in torchvision.
    Of a picture whose shorter side is below `size`, the largest square at the centre is enlarged to it (`resample`).

    Args:
        size: side of the window.

    Shape:
        (R, C, H, W) → (R, C, size, size) of the same dtype; enlarged bytes are rounded. `sizes` is (R, 2) int64, height
        and width of each picture. Whether all are large enough is asked of their device, which makes a GPU wait.

    Raises:
        ValueError: if `size` < 1, or `sizes` doesn't fit the pictures (its numbers are checked on a CPU only).
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        if size < 1:
            raise ValueError(f"size is {size}; it must be at least 1")
        self.size = size

    def forward(self, images: Tensor, sizes: Tensor) -> Tensor:
        """Crops `images` (R, C, H, W) whose heights and widths are `sizes` (R, 2)."""
        _check_sizes(images, sizes)
        sides = sizes.amin(1).clamp(max=self.size)
        places = ((sizes - sides[:, None]) / 2).round().long()
        return _cut_or_enlarge(images, places, sides, self.size)

    def extra_repr(self) -> str:
        """`size=224`."""
        return f"size={self.size}"


def random_boxes(numbers: Tensor, sizes: Tensor, scale: tuple[float, float], ratio: tuple[float, float]) -> Tensor:
    """The boxes of `RandomResizedCrop`, from the numbers drawn for them.

    Args:
        numbers: (R, 2·TRIES + 2) float32 on [0, 1): areas, then shapes of the tries, then the place down and across.
        sizes: (R, 2) int64, height and width of each picture.
        scale: smallest and largest share of the area.
        ratio: smallest and largest width/height.

    Returns:
        (R, 4) int64: top, left, height and width of each box.
    """
    picture_heights, picture_widths = sizes.unbind(1)
    shares = scale[0] + (scale[1] - scale[0]) * numbers[:, :TRIES]
    logs = math.log(ratio[0]) + (math.log(ratio[1]) - math.log(ratio[0])) * numbers[:, TRIES : 2 * TRIES]
    areas, shapes = sizes.prod(1, keepdim=True) * shares, logs.exp()
    widths, heights = (areas * shapes).sqrt().round().long(), (areas / shapes).sqrt().round().long()
    fits = (
        (heights >= 1) & (widths >= 1) & (heights <= picture_heights[:, None]) & (widths <= picture_widths[:, None])
    )  # (R, TRIES)
    first = fits.byte().argmax(1, keepdim=True)  # of several largest, the first
    found = fits.any(1)

    # What is left when nothing fits: a picture longer than any box fills one side, and the box's shape is the extreme.
    fallback_widths = torch.minimum(picture_widths, (picture_heights * ratio[1]).round().long())
    fallback_heights = torch.minimum(picture_heights, (picture_widths / ratio[0]).round().long())
    box_heights = torch.where(found, heights.gather(1, first).squeeze(1), fallback_heights)
    box_widths = torch.where(found, widths.gather(1, first).squeeze(1), fallback_widths)
    rooms = torch.stack([picture_heights - box_heights, picture_widths - box_widths], dim=1)
    places = torch.where(found[:, None], scale_to_integers(numbers[:, -2:], rooms + 1), rooms // 2)
    return torch.cat([places, box_heights[:, None], box_widths[:, None]], dim=1)


def resample(images: Tensor, boxes: Tensor, size: int) -> Tensor:
    """Resizes one box of each picture to `size` × `size`, bilinearly between pixel centres, without antialiasing.

    Output pixel i reads at top + (i + ½)·height/size − ½, clamped to the box, and columns likewise. Places are rounded
    in float32, which is worth about a hundredth of a level for pictures of some hundred pixels.

    Args:
        images: (R, C, H, W), uint8 or floating.
        boxes: (R, 4) int64: top, left, height and width of each box, inside its picture.
        size: side of the result.

    Returns:
        (R, C, size, size) float32 of the same levels, not rounded.
    """
    steps = (torch.arange(size, device=images.device) + 0.5) / size
    extents = images.new_tensor(images.shape[2:], dtype=torch.float32)
    axes = []
    for axis in (0, 1):
        start, length = boxes[:, axis, None], boxes[:, 2 + axis, None]
        inside = (length * steps - 0.5).clamp(min=0).minimum(length - 1.0)
        # grid_sample counts from −1 to 1 between the outer edges of the tensor.
        axes.append((2 * (start + inside) + 1) / extents[axis] - 1)
    down, across = axes  # (R, size) each
    shape = (len(images), size, size)
    grid = torch.stack([across[:, None, :].expand(shape), down[:, :, None].expand(shape)], dim=3)
    return nn.functional.grid_sample(images.float(), grid, padding_mode="border", align_corners=False)


def _cut_or_enlarge(images: Tensor, places: Tensor, sides: Tensor, size: int) -> Tensor:
    """Squares of `sides` (R,) at `places` (R, 2), top and left, as windows of `size`: those below it are enlarged."""
    small = sides < size
    if not bool(small.any()):
        rows = torch.arange(len(images), device=images.device)
        return cut_windows(images, rows, places[:, 0], places[:, 1], size, size)
    squares = torch.cat([places, sides[:, None], sides[:, None]], dim=1)[small]
    enlarged = resample(images[small], squares, size)
    crops = images.new_empty(*images.shape[:2], size, size)
    crops[small] = (enlarged if images.is_floating_point() else enlarged.round()).to(images.dtype)
    if not bool(small.all()):
        large = (~small).nonzero().squeeze(1)
        crops[large] = cut_windows(images, large, places[large, 0], places[large, 1], size, size)
    return crops


def _check_sizes(images: Tensor, sizes: Tensor) -> None:
    check_images(images)
    if sizes.shape != (len(images), 2):
        raise ValueError(
            f"sizes is {tuple(sizes.shape)}; {len(images)} pictures need their heights and widths, ({len(images)}, 2)"
        )
    if sizes.device.type == "cpu" and len(sizes):
        if int(sizes.min()) < 1:
            raise ValueError(f"a picture has a side of {int(sizes.min())}; it must be at least 1")
        largest = sizes.amax(0)
        if bool((largest > torch.tensor(images.shape[2:])).any()):
            raise ValueError(
                f"sizes say up to {' × '.join(map(str, largest.tolist()))}, but the pictures' tensor holds "
                f"{' × '.join(map(str, images.shape[2:]))}"
            )
