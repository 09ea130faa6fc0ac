"""Views of pictures: random in training, the centre in evaluation."""

from __future__ import annotations

from torch import Tensor, nn

from seqba.errors import UserError
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
from seqba.options import option, options

MINIMUM_DECODE_SIZE = 8


@options
class ViewOptions:
    """Options of the random views in training: the augmentation of Batch Augmentation."""

    augmentation: str = option(
        "crop",
        "crop: a window of the picture padded with --crop-padding zeros, mirrored or not (CIFAR), pictures of "
        "different sizes being resized to a shorter side of --decode-size before; resized-crop: a box of 8 to 100% of "
        "it, resized, mirrored or not (ImageNet); none: the middle",
        choices=("crop", "resized-crop", "none"),
    )
    crop_padding: int = option(4, "zeros on each side before a crop, in pixels", minimum=0)
    cutout: int = option(0, "blank a square of this side, in pixels; 0 = not (the paper: 16)", minimum=0)
    colour_jitter: tuple[float, ...] = option(
        (), "vary brightness, contrast and saturation by up to these shares (0.4,0.4,0.4)", minimum=0, metavar="B,C,S"
    )
    image_size: int | None = option(
        None,
        "side of what the model sees, in pixels (default: the pictures' own, the shorter one where all training "
        "pictures have one size of at most --decode-size, or 224 if they differ)",
        minimum=8,
    )
    decode_size: int = option(
        256,
        "pixels that the shorter side of a larger picture is shrunk to when decoded; 400 leaves most of ImageNet as it "
        "is, so that a small box of resized-crop isn't blurred",
        minimum=MINIMUM_DECODE_SIZE,
    )
    decode_size_valid: int | None = option(
        None,
        "the same for validation and evaluation, which see the middle (default: --decode-size; with resized-crop 8/7 "
        "of --image-size, which is 256 for 224, if that is less)",
        minimum=MINIMUM_DECODE_SIZE,
    )

    def __post_init__(self) -> None:
        """Refuses options without effect."""
        if self.crop_padding != 4 and self.augmentation != "crop":
            raise UserError(f"--crop-padding belongs to --augmentation crop, not {self.augmentation}")
        if self.cutout == 1:
            raise UserError("--cutout 1 would blank nothing: an odd side acts as the even number below it")
        if len(self.colour_jitter) not in (0, 3):
            raise UserError(f"--colour-jitter takes three numbers like 0.4,0.4,0.4, not {len(self.colour_jitter)}")
        if self.image_size is not None and self.image_size > self.decode_size:
            raise UserError(
                f"--image-size {self.image_size} is more than --decode-size {self.decode_size}: pictures would be "
                "shrunk and then enlarged"
            )
        if self.image_size is not None and self.image_size > (self.decode_size_valid or self.image_size):
            raise UserError(
                f"--image-size {self.image_size} is more than --decode-size-valid {self.decode_size_valid}: pictures "
                "would be shrunk and then enlarged"
            )


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
