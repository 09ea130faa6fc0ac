"""Decoding: sizes worked by hand, pixels against Pillow's own steps, and every file that must be refused."""

from __future__ import annotations

import importlib
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from toy_images import picture

from seqba.data.image_decoding import FORMATS, decode, load_pillow, shrunk_size
from seqba.errors import UserError


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ((500, 375), (341, 256)),  # 341.33
        ((375, 500), (256, 341)),
        ((256, 256), (256, 256)),
        ((300, 257), (298, 256)),  # 298.83
        ((100, 80), (100, 80)),  # never enlarged
        ((5000, 200), (5000, 200)),
        ((1, 9000), (1, 9000)),
    ],
)
def test_the_shorter_side_is_shrunk(given: tuple[int, int], expected: tuple[int, int]) -> None:
    assert shrunk_size(*given, 256) == expected


def test_a_picture_that_fits_is_taken_pixel_by_pixel(tmp_path: Path) -> None:
    image = picture(20, 30, seed=1)
    image.save(tmp_path / "a.png")
    pixels = decode(str(tmp_path / "a.png"), 20)
    assert (pixels.shape, pixels.dtype) == ((20, 30, 3), np.uint8)
    assert np.array_equal(pixels, np.asarray(image))


def test_shrinking_takes_the_mean_of_what_a_pixel_covers(tmp_path: Path) -> None:
    stripes = np.zeros((64, 64, 3), dtype=np.uint8)
    stripes[:, ::2] = 200
    Image.fromarray(stripes).save(tmp_path / "a.png")
    inside = decode(str(tmp_path / "a.png"), 16)[2:-2, 2:-2].astype(int)
    assert abs(inside - 100).max() <= 1  # without the filter it would be stripes again, or one of the two colours


def test_a_large_jpeg_is_hardly_another_picture_than_in_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture(1500, 2000, seed=3).save(tmp_path / "a.jpg", quality=95)
    asked = []
    with Image.open(tmp_path / "a.jpg") as image:
        jpeg = type(image)
        full = np.asarray(image.convert("RGB").resize((128, 96), Image.Resampling.BILINEAR)).astype(int)
    draft = jpeg.draft

    def seen(self: Image.Image, mode: str, size: tuple[int, int]) -> object:
        result = draft(self, mode, size)
        asked.append(self.size)
        return result

    monkeypatch.setattr(jpeg, "draft", seen)
    pixels = decode(str(tmp_path / "a.jpg"), 96).astype(int)
    assert asked == [(500, 375)]  # a quarter; an eighth would leave less than twice 96 rows
    assert pixels.shape == full.shape
    assert abs(pixels - full).mean() < 1


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "LA", "CMYK", "I;16"])
def test_every_kind_of_pixels_becomes_three_colours(mode: str, tmp_path: Path) -> None:
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    (Image.new(mode, (30, 20)) if mode == "I;16" else picture(20, 30, seed=1).convert(mode)).save(path)
    assert decode(str(path), 10).shape == (10, 15, 3)


def test_grey_becomes_equal_channels(tmp_path: Path) -> None:
    grey = picture(20, 30, seed=1).convert("L")
    grey.save(tmp_path / "a.png")
    pixels = decode(str(tmp_path / "a.png"), 20)
    assert all(np.array_equal(pixels[..., channel], np.asarray(grey)) for channel in range(3))


def test_the_noted_orientation_is_not_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90°
    picture(20, 30, seed=1).save(tmp_path / "a.jpg", exif=exif)
    assert decode(str(tmp_path / "a.jpg"), 20).shape == (20, 30, 3)


def test_what_a_file_is_shows_in_its_bytes(tmp_path: Path) -> None:
    image = picture(20, 30, seed=1)
    image.save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / "a.JPEG")
    assert np.array_equal(decode(str(tmp_path / "a.JPEG"), 20), np.asarray(image))


@pytest.mark.parametrize("kind", FORMATS)
def test_all_known_formats_are_read(kind: str, tmp_path: Path) -> None:
    picture(20, 30, seed=1).save(tmp_path / "a", kind)
    assert decode(str(tmp_path / "a"), 10).shape == (10, 15, 3)


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as refused:
        decode(str(path), 16)
    line = str(refused.value)
    assert line.startswith(f"picture {path} ")
    assert "\n" not in line
    return line


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_truncated_picture_is_broken(kind: str, tmp_path: Path) -> None:
    picture(64, 64, seed=1).save(tmp_path / "a.jpg", kind)
    content = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(content[: len(content) // 2])
    assert "is broken (" in refusal(tmp_path / "a.jpg")


@pytest.mark.parametrize("content", [b"", b"a text\n", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", b"GIF89a"])
def test_what_is_no_picture_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(content)
    assert "is not a picture in one of the formats JPEG, PNG" in refusal(tmp_path / "a.jpg")


@pytest.mark.parametrize("side", [10_000, 30_000])  # Pillow warns of the one and refuses the other
def test_a_huge_picture_is_refused_before_it_fills_the_memory(side: int, tmp_path: Path) -> None:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")))
    assert "more than the 89,478,485 pixels that Pillow takes for safe" in refusal(tmp_path / "a.png")


def test_a_file_that_is_gone_is_named(tmp_path: Path) -> None:
    assert "cannot be read: No such file or directory; was it moved" in refusal(tmp_path / "a.png")


def test_too_little_memory_is_not_the_pictures_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(load_pillow(), "open", fail)
    with pytest.raises(MemoryError):
        decode(str(tmp_path / "a.png"), 16)


def test_without_pillow_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise ImportError(name)

    load_pillow.cache_clear()
    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(UserError, match=r"pip install 'seqba\[vision\]'"):
        load_pillow()
