"""Views of pictures: random in training, the centre in evaluation."""

from __future__ import annotations

from torch import Tensor, nn

from seqba.nn import (
    CenterCrop,
    ColourJitter,
    Cutout,
    HorizontalFlip,
    Normalize,
    RandomCrop,
    RandomResizedCrop,
    RandomWindow,
)
from seqba.tasks.image_options import MINIMUM_DECODE_SIZE, ViewOptions


def evaluation_decode_size(options: ViewOptions, size: int) -> int:
    """The shorter side that pictures are decoded to where the model, whose pictures are `size` wide, sees the middle.

    A window of training has the scale of the decoded picture, and so must have the middle in evaluation. Resized crops
    have any scale; with them it is the usual one, 256 for 224, however large training's pictures are decoded.
    """
    if options.decode_size_valid is not None:
        return options.decode_size_valid
    usual = max(round(size * 8 / 7), MINIMUM_DECODE_SIZE)
    return min(options.decode_size, usual) if options.augmentation == "resized-crop" else options.decode_size


class View(nn.Module):
    """View of a batch's pictures, as the model sees them.

    Args:
        window: (images, sizes) → windows of one size.
        changes: what is done to the windows, in order.

    Shape:
        (R, 3, H, W) uint8 and sizes (R, 2) int64 → (R, 3, side, side) float32.
    """

    def __init__(self, window: nn.Module, changes: list[nn.Module]) -> None:
        super().__init__()
        self.window = window
        self.changes = nn.Sequential(*changes)

    def forward(self, images: Tensor, sizes: Tensor) -> Tensor:
        """The view of each row."""
        window = self.window(images) if isinstance(self.window, RandomCrop) else self.window(images, sizes)
        view: Tensor = self.changes.to(images.device)(window)  # a view is no part of the model that was moved there
        return view


def training_view(options: ViewOptions, size: int, *, equal: bool = True) -> View:
    """The random view that the options describe, `size` pixels wide and high.

    Args:
        options: of training.
        size: of the view, in pixels.
        equal: whether all pictures have one size, and crops are windows of them as they are.

    Crop, flip, colours, normalisation, and cutout last, so that what is blank is the mean colour.
    """
    changes: list[nn.Module] = []
    if options.augmentation != "none":
        changes.append(HorizontalFlip())
    if options.colour_jitter:
        changes.append(ColourJitter(*options.colour_jitter))
    changes.append(Normalize())
    if options.cutout:
        changes.append(Cutout(options.cutout))
    return View(_window(options, size, equal=equal), changes)


def _window(options: ViewOptions, size: int, *, equal: bool) -> nn.Module:
    if options.augmentation == "none":
        return CenterCrop(size)
    if options.augmentation == "resized-crop":
        return RandomResizedCrop(size)
    return (
        RandomCrop(size, options.crop_padding)
        if equal
        else RandomWindow(size, options.decode_size, options.crop_padding)
    )


def evaluation_view(size: int) -> View:
    """View of a picture's centre, enlarged where the picture is smaller, and normalised."""
    return View(CenterCrop(size), [Normalize()])
