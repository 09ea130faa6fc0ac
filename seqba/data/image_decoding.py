"""A picture's file → pixels, with Pillow, and with suspicion."""

from __future__ import annotations

import functools
import importlib
import warnings
from typing import Any

import numpy as np

from seqba.data.image_batch import Pixels
from seqba.errors import UserError

SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".pgm", ".bmp", ".tif", ".tiff", ".webp")
"""Endings of files that are taken for pictures, in upper or lower case: those of torchvision's ImageFolder."""

# What a file is, is seen in its bytes (a picture of ImageNet that is called .JPEG is a PNG). Others of Pillow's formats
# are refused: PostScript, for one, would be handed to an interpreter.
FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP")

REDUCING_GAP = 2
"""How many times larger than asked for a JPEG is decoded at least, so that the last step down is the filter's."""


@functools.cache
def load_pillow() -> Any:
    """The module PIL.Image, an optional dependency.

    Raises:
        UserError: when it isn't installed.
    """
    try:
        return importlib.import_module("PIL.Image")
    except ImportError:
        raise UserError(
            "folders of pictures need a package that isn't installed: pip install 'seqba[vision]' (Pillow)"
        ) from None


def decode(path: str, size: int) -> Pixels:
    """The pixels of a picture, its shorter side shrunk to `size`: (height, width, 3) uint8, red, green, blue.

    The longer side keeps the proportion, rounded down as torchvision's `Resize` does. A smaller picture stays as it is:
    where a crop must be larger, it is enlarged on the device, and enlarging here would only make more bytes of the same
    picture (and, of one that is a pixel high and thousands wide, very many).

    Shrinking is bilinear over the whole area of a pixel ("antialiased"). A large JPEG is decoded at a half, a quarter
    or an eighth of its size where that leaves twice what is asked for (Pillow's `draft`), which is several times faster
    and hardly another picture.

    As by torchvision's `ImageFolder`, the orientation that a camera noted (EXIF) isn't applied, transparency is
    dropped, and grey becomes three equal channels.

    Raises:
        UserError: for a file that cannot be read, is broken or no picture, or has more pixels than Pillow takes for
            safe (some 90 million).
    """
    pillow = load_pillow()
    try:
        with warnings.catch_warnings():
            # Remarks on metadata, which several pictures of ImageNet have wrong, say nothing about pixels.
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", pillow.DecompressionBombWarning)
            with pillow.open(path, formats=FORMATS) as image:
                shrunk = shrunk_size(image.width, image.height, size)
                image.draft("RGB", (shrunk[0] * REDUCING_GAP, shrunk[1] * REDUCING_GAP))
                rgb = image.convert("RGB")
                if rgb.size != shrunk:
                    rgb = rgb.resize(shrunk, pillow.Resampling.BILINEAR)
                return np.asarray(rgb)
    except MemoryError:
        raise  # the machine's fault, not the picture's
    except Exception as error:  # decoders fail in every way on broken bytes: struct.error, SyntaxError, IndexError, …
        raise UserError(f"picture {path} {_explain(error, pillow)}") from None


def shrunk_size(width: int, height: int, size: int) -> tuple[int, int]:
    """Width and height when the shorter side is at most `size`, and none below 1."""
    shorter = min(width, height)
    if shorter <= size:
        return width, height
    return size * width // shorter, size * height // shorter


def _explain(error: Exception, pillow: Any) -> str:
    mend = "remove the file or put a sound one in its place"
    if isinstance(error, (pillow.DecompressionBombError, pillow.DecompressionBombWarning)):
        return (
            f"has more than the {pillow.MAX_IMAGE_PIXELS:,} pixels that Pillow takes for safe: shrink it beforehand, "
            "or remove it"
        )
    if isinstance(error, pillow.UnidentifiedImageError):
        return f"is not a picture in one of the formats {', '.join(FORMATS)}: {mend}"
    if isinstance(error, OSError) and error.strerror is not None:
        return f"cannot be read: {error.strerror}; was it moved or removed during the run?"
    return f"is broken ({str(error) or type(error).__name__}): {mend}"
