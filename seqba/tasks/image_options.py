"""Options of classifying pictures: the pictures to learn from, and the views of them that copies see."""

from __future__ import annotations

from seqba.errors import UserError
from seqba.options import is_given, option, options

HELD_OUT = "held-out"
"""The split that `--hold-out` takes from the training pictures."""

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


@options
class ImageOptions(ViewOptions):
    """Options of the pictures to learn from, and of the view that a copy sees of them."""

    mixup: float = option(
        0.0, "α of mixup: each copy mixes its pictures in pairs, in shares drawn from Beta(α, α); 0 = not", minimum=0
    )
    manifold_mixup: float = option(0.0, "the same at the input or at one of two places in the model", minimum=0)
    mixup_lambda: str = option(
        "per-copy",
        "per-copy: each copy draws its own share λ (and place), of which an update with M copies averages M; shared: "
        "one for all copies of a micro-batch, as in the released code of Batch Augmentation. Partners are drawn by "
        "each copy in itself",
        choices=("per-copy", "shared"),
    )
    hold_out: int = option(
        0, f"take so many training pictures, the same for all seeds, as a split of its own: {HELD_OUT}", minimum=0
    )
    num_workers: int = option(
        2, "processes that decode pictures ahead of time (CIFAR is memory-mapped and needs none)", minimum=0
    )

    def __post_init__(self) -> None:
        """Refuses options that exclude each other."""
        super().__post_init__()
        if self.mixup and self.manifold_mixup:
            raise UserError("--mixup and --manifold-mixup exclude each other: the latter mixes at the input too")
        if is_given(self, "mixup_lambda") and not self.mixup and not self.manifold_mixup:
            raise UserError(f"--mixup-lambda {self.mixup_lambda} needs --mixup or --manifold-mixup: nothing is mixed")
