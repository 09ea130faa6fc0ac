"""The noise of small images as batched tensor code: random crop, flip and cutout, each row with its own draw.

Pictures are decoded once per update and repeated as bytes; every copy of a picture is then cropped, mirrored and cut
out by a few kernels over all rows of the pass, on the device that the model is on.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from seqba.noise.context import current_noise

IMAGENET_MEAN = (0.485, 0.456, 0.406)
"""Mean of red, green and blue over ImageNet, of levels from 0 to 1; the released code takes it for CIFAR too."""

IMAGENET_STD = (0.229, 0.224, 0.225)
"""Their standard deviation."""


class RandomCrop(nn.Module):
    """Surrounds each picture with zeros and cuts out a window of `size` × `size` at a uniformly random place.

    Randomness: one place per row. Inside an update it is keyed by (seed, update, micro-batch, copy, site); outside one
        it
    comes from the global generator. In evaluation the pictures are returned as they are.

    Args:
        size: side of the window.
        padding: zeros on every side. Zero is black before `Normalize`, which is where the released code pads.

    Shape:
        (k·B, C, H, W) → (k·B, C, size, size), any dtype; k copies in the pass, copy-major.

    Raises:
        ValueError: if `size` < 1 or `padding` < 0, or if the window is larger than the padded picture.

    Source: as in the released code of Hoffer et al. 2020, with 4 pixels of padding for CIFAR.
    """

    def __init__(self, size: int, padding: int = 0) -> None:
        super().__init__()
        if size < 1 or padding < 0:
            raise ValueError(
                f"size is {size} and padding {padding}; a window has a side of at least 1, padding at least 0"
            )
        self.size = size
        self.padding = padding

    def forward(self, images: Tensor) -> Tensor:
        """Crops `images` (k·B, C, H, W)."""
        check_images(images)
        if not self.training:
            return images
        padded = nn.functional.pad(images, (self.padding,) * 4)
        rows, _, height, width = padded.shape
        if min(height, width) < self.size:
            raise ValueError(
                f"a window of {self.size} × {self.size} doesn't fit into pictures of {images.shape[2]} × "
                f"{images.shape[3]} with {self.padding} pixels of padding"
            )
        numbers = draw_uniform(self, (rows, 2), images.device)
        tops = scale_to_integers(numbers[:, 0], height - self.size + 1)
        lefts = scale_to_integers(numbers[:, 1], width - self.size + 1)
        every = torch.arange(rows, device=images.device)
        return cut_windows(padded, every, tops, lefts, self.size, self.size)

    def extra_repr(self) -> str:
        """`size=32, padding=4`."""
        return f"size={self.size}, padding={self.padding}"


class HorizontalFlip(nn.Module):
    """Mirrors each picture with probability `p`: left becomes right.

    Randomness: one draw per row, keyed as in `RandomCrop`. In evaluation the pictures are returned as they are.

    Args:
        p: probability of mirroring, in [0, 1].

    Shape:
        (k·B, C, H, W) → the same, any dtype; k copies in the pass, copy-major.

    Raises:
        ValueError: if p isn't in [0, 1].
    """

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        if not 0 <= p <= 1:
            raise ValueError(f"probability of mirroring is {p}; it must be in [0, 1]")
        self.p = p

    def forward(self, images: Tensor) -> Tensor:
        """Mirrors some of `images` (k·B, C, H, W)."""
        check_images(images)
        if not self.training:
            return images
        rows = images.shape[0]
        mirrored = draw_uniform(self, (rows,), images.device) < self.p
        # Both versions of every row, then one of each: whole rows move, where choosing by element takes four times as
        # long on a CPU.
        both = torch.cat([images, images.flip(3)])
        return both.index_select(0, torch.arange(rows, device=images.device) + rows * mirrored)

    def extra_repr(self) -> str:
        """`p=0.5`."""
        return f"p={self.p}"


class Normalize(nn.Module):
    """Levels from 0 to 255 → numbers of mean 0 and deviation 1: (x/255 − mean)/std per channel, as x·a + b.

    Nothing is random, and evaluation does the same.

    Args:
        mean: of each channel, of levels from 0 to 1.
        std: standard deviation of each channel, likewise.

    Shape:
        (R, C, H, W), uint8 or floating → the same in float32, in new memory.

    Raises:
        ValueError: if `mean` and `std` differ in length, a deviation isn't above 0, or pictures have other channels.
    """

    def __init__(self, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD) -> None:
        super().__init__()
        if len(mean) != len(std) or min(std) <= 0:
            raise ValueError(f"mean {tuple(mean)} and std {tuple(std)} must have one number per channel, std above 0")
        centre, deviation = torch.tensor(mean, dtype=torch.float64), torch.tensor(std, dtype=torch.float64)
        # Not in the state: a checkpoint's weights don't depend on how its pictures were read.
        self.register_buffer("scale", (1 / (255 * deviation)).float().view(-1, 1, 1), persistent=False)
        self.register_buffer("shift", (-centre / deviation).float().view(-1, 1, 1), persistent=False)
        self.scale: Tensor
        self.shift: Tensor

    def forward(self, images: Tensor) -> Tensor:
        """Normalises `images` (R, C, H, W)."""
        check_images(images)
        if images.shape[1] != len(self.scale):
            raise ValueError(f"pictures have {images.shape[1]} channels, but mean and std {len(self.scale)}")
        return images.to(torch.float32, copy=True).mul_(self.scale).add_(self.shift)

    def extra_repr(self) -> str:
        """`channels=3`."""
        return f"channels={len(self.scale)}"


class Cutout(nn.Module):
    """Sets squares of each normalised picture to zero, which is the mean colour there.

    A square is centred on a uniformly random pixel (y, x) and clipped at the borders: it covers rows y − length//2 to
    y + length//2 − 1, and columns likewise. An odd `length` hence acts as the even number below it, as released.

    Randomness: `holes` centres per row, keyed as in `RandomCrop`. In evaluation the pictures are returned as they are.

    Args:
        length: side of a square.
        holes: squares of each picture; they may overlap.

    Shape:
        (k·B, C, H, W) → the same, floating; k copies in the pass, copy-major. All channels lose the same squares.

    Raises:
        ValueError: if `length` or `holes` < 1, or the pictures aren't floating: a zero byte is black, not the mean.

    Source: DeVries & Taylor 2017, section 3; always applied, as in its released code.
    """

    def __init__(self, length: int, holes: int = 1) -> None:
        super().__init__()
        if length < 1 or holes < 1:
            raise ValueError(f"length is {length} and holes {holes}; both must be at least 1")
        self.length = length
        self.holes = holes

    def forward(self, images: Tensor) -> Tensor:
        """Cuts squares out of `images` (k·B, C, H, W)."""
        check_images(images)
        if not images.is_floating_point():
            raise ValueError(f"cutout needs normalised pictures of a floating dtype, not {images.dtype}")
        if not self.training:
            return images
        rows, _, height, width = images.shape
        half = self.length // 2
        numbers = draw_uniform(self, (rows, self.holes, 2), images.device)
        ys, xs = scale_to_integers(numbers[..., 0], height), scale_to_integers(numbers[..., 1], width)
        # A mask with a hole at (y, x) is a window of one canvas, twice the picture's size, with its hole in the middle.
        canvas = images.new_ones(1, 1, 2 * height, 2 * width)
        canvas[..., max(height - half, 0) : height + half, max(width - half, 0) : width + half] = 0
        only = torch.zeros(rows * self.holes, dtype=torch.int64, device=images.device)
        kept = cut_windows(canvas, only, height - ys.flatten(), width - xs.flatten(), height, width)
        masks = kept.view(rows, self.holes, height, width)
        return images * (masks if self.holes == 1 else masks.amin(1, keepdim=True))

    def extra_repr(self) -> str:
        """`length=16, holes=1`."""
        return f"length={self.length}, holes={self.holes}"


def draw_uniform(owner: nn.Module, shape: Sequence[int], device: torch.device) -> Tensor:
    """float32 of `shape` (k·B, ...), uniform on [0, 1): keyed inside an update, else from the global generator."""
    noise = current_noise()
    return torch.rand(*shape, device=device) if noise is None else noise.uniform(owner, shape, device)


def scale_to_integers(numbers: Tensor, count: int | Tensor) -> Tensor:
    """int64 in 0..count − 1 from float32 numbers in [0, 1): ⌊number·count⌋, for a count far below 2^24.

    The largest float32 below 1 is 1 − 2^-24; times a whole number it is rounded to a float below that number, so that
    `count` itself never comes out.
    """
    return (numbers * count).long()


def cut_windows(images: Tensor, rows: Tensor, tops: Tensor, lefts: Tensor, height: int, width: int) -> Tensor:
    """Cuts R windows out of pictures, one kernel for all: window i is images[rows[i], :, tops[i]:…, lefts[i]:…].

    Every place of memory starts a window of some view; the windows wanted are rows of that view, and whole rows are
    what `index_select` copies fastest: a quarter of the time of gathering by element on a CPU, and no index as large as
    the result.

    Args:
        images: (N, C, H, W).
        rows: (R,) int64, which picture.
        tops: (R,) int64, at most H − height. Unchecked, like `lefts`: a window must lie in its picture.
        lefts: (R,) int64, at most W − width.
        height: of all windows.
        width: of all windows.

    Returns:
        (R, C, height, width) in new memory.
    """
    images = images.contiguous()
    channels, stride = images.shape[1], images.shape[3]
    plane = images.shape[2] * stride
    span = (channels - 1) * plane + (height - 1) * stride + width
    views = images.as_strided((images.numel() - span + 1, channels, height, width), (1, plane, stride, 1))
    return views.index_select(0, rows * channels * plane + tops * stride + lefts)


def check_images(images: Tensor) -> None:
    """Raises ValueError unless `images` has the four dimensions (R, C, H, W)."""
    if images.dim() != 4:
        raise ValueError(f"pictures must be (rows, channels, height, width), not {tuple(images.shape)}")
