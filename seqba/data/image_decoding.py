"""A picture's file → pixels, with Pillow, and with suspicion."""

from __future__ import annotations

import functools
import importlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from seqba.data.image_batch import Pixels
from seqba.errors import UserError

SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".pgm", ".bmp", ".tif", ".tiff", ".webp")
"""Endings of files that are taken for pictures, in upper or lower case: those of torchvision's ImageFolder."""

# What a file is, is seen in its bytes (a picture of ImageNet that is called .JPEG is a PNG). Others of Pillow's formats
# are refused: PostScript, for one, would be handed to an interpreter.
FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP")

EIGHT_BIT_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB")
"""Pillow's modes of up to 8 bits a channel that the formats have; where a file has 16, colour comes as its upper 8."""

SIXTEEN_BIT_MODES = ("I;16", "I;16L", "I;16B", "I;16N")

SIXTEEN_BIT_FORMATS = ("PNG", "PPM")
"""Formats without 32-bit pixels: where Pillow gives their grey as mode I, white is 65,535."""

BITS_PER_SAMPLE, PHOTOMETRIC, PLANAR, SAMPLE_FORMAT = 258, 262, 284, 339
WHITE_IS_ZERO, SEPARATE, UNSIGNED = 0, 2, 1
"""Tags of a TIFF and values of them (TIFF 6.0, sections 8 and 19)."""

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

    As by torchvision's `ImageFolder`, the orientation that a camera noted (EXIF) isn't applied (Pillow itself turns a
    TIFF by its own tag), colour profiles aren't either, transparency is dropped, grey becomes three equal channels, and
    of an animation or several pages the first picture is taken. Unlike there, pixels of more than 8 bits are scaled
    and not clamped: of each sample its upper 8 bits are taken, in grey as in colour.

    Raises:
        UserError: for a file that cannot be read, is broken or no picture, has pixels of a kind whose scale no one
            knows (32-bit integers, floats, signed ones), or more pixels than Pillow takes for safe (some 90 million).
    """
    with _opened(path) as image:
        shrunk = shrunk_size(image.width, image.height, size)
        image.draft("RGB", (shrunk[0] * REDUCING_GAP, shrunk[1] * REDUCING_GAP))
        rgb = _to_rgb(image)
        if rgb.size != shrunk:
            rgb = rgb.resize(shrunk, load_pillow().Resampling.BILINEAR)
        return np.asarray(rgb)


def read_size(path: str) -> tuple[int, int]:
    """Width and height of a picture, from the head of its file.

    Raises:
        UserError: as `decode`, for what the head shows.
    """
    with _opened(path) as image:
        return int(image.width), int(image.height)


@contextmanager
def _opened(path: str) -> Iterator[Any]:
    """The picture in a file, for Pillow to decode inside; whatever fails there is a line about the file."""
    pillow = load_pillow()
    try:
        with warnings.catch_warnings():
            # Remarks on metadata, which several pictures of ImageNet have wrong, say nothing about pixels.
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", pillow.DecompressionBombWarning)
            with pillow.open(path, formats=FORMATS) as image:
                yield image
    except MemoryError:
        raise  # the machine's fault, not the picture's
    except Exception as error:  # decoders fail in every way on broken bytes: struct.error, SyntaxError, IndexError, …
        raise UserError(f"picture {path} {_explain(error, pillow)}") from None


class _UnknownScaleError(Exception):
    """Pixels of which no one knows what white is."""


def _to_rgb(image: Any) -> Any:
    """Any picture as red, green and blue of 8 bits each.

    Raises:
        _UnknownScaleError: naming its mode, where that can't be said of its pixels.
    """
    tags = getattr(image, "tag_v2", {})  # of a TIFF
    if set(_numbers(tags.get(SAMPLE_FORMAT, 1))) != {UNSIGNED}:
        raise _UnknownScaleError(f"signed or floating samples (mode {image.mode})")
    bits = max(_numbers(tags.get(BITS_PER_SAMPLE, 8)))
    if bits > 8 and tags.get(PLANAR) == SEPARATE:
        # Pillow reads each plane as if it had 8 bits.
        raise _UnknownScaleError(f"{bits}-bit samples plane after plane (mode {image.mode})")
    if image.mode in EIGHT_BIT_MODES:
        return image.convert("RGB")
    if image.mode in SIXTEEN_BIT_MODES or (image.mode == "I" and image.format in SIXTEEN_BIT_FORMATS):
        samples = np.asarray(image)
        grey = (samples >> (bits - 8 if tags else 8)).astype(np.uint8)
        # Pillow inverts 8-bit pictures whose 0 is white, but none of more.
        grey = 255 - grey if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO else grey
        return load_pillow().fromarray(grey).convert("RGB")
    raise _UnknownScaleError(f"mode {image.mode}")


def _numbers(tag: Any) -> tuple[int, ...]:
    return tag if isinstance(tag, tuple) else (tag,)


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
    if isinstance(error, _UnknownScaleError):
        return f"has pixels of {error}, which don't say what black and white are: convert it to 8 bits a channel"
    if isinstance(error, pillow.UnidentifiedImageError):
        return (
            f"is not a picture in one of the formats {', '.join(FORMATS)}, or has pixels of a kind that Pillow doesn't "
            f"read in it: {mend}"
        )
    if isinstance(error, OSError) and error.strerror is not None:
        return f"cannot be read: {error.strerror}; was it moved or removed during the run?"
    return f"is broken ({str(error) or type(error).__name__}): {mend}"
