"""Decoding: sizes worked by hand, pixels against Pillow's own steps, and every file that must be refused."""

from __future__ import annotations

import importlib
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from deep_pictures import COLOURS, DEEP, png, tiff
from PIL import Image
from toy_images import picture

from seqba.data.image_decoding import FORMATS, decode, load_pillow, read_size, shrunk_size
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


def twelve_bits() -> bytes:
    """`DEEP`'s upper 12 bits, two samples in three bytes."""
    packed = bytearray()
    for one, other in (DEEP >> 4).reshape(-1, 2).tolist():
        packed += bytes([one >> 4, (one & 15) << 4 | other >> 8, other & 255])
    return bytes(packed)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        pytest.param(png(DEEP, 0), DEEP >> 8, id="png"),
        pytest.param(png(COLOURS, 2), COLOURS >> 8, id="colours-png"),
        pytest.param(png(np.stack([DEEP, DEEP], axis=2), 4), DEEP >> 8, id="grey-and-alpha-png"),
        pytest.param(png(np.dstack([COLOURS, DEEP]), 6), COLOURS >> 8, id="colours-and-alpha-png"),
        pytest.param(tiff([DEEP.tobytes()], (16,)), DEEP >> 8, id="tiff"),
        pytest.param(tiff([DEEP.astype(">u2").tobytes()], (16,), order=">"), DEEP >> 8, id="big-endian-tiff"),
        pytest.param(tiff([DEEP.tobytes()], (16,), photometric=0), 255 - (DEEP >> 8), id="white-is-zero-tiff"),
        pytest.param(tiff([twelve_bits()], (12,)), DEEP >> 8, id="12-bits-tiff"),
        pytest.param(tiff([COLOURS.tobytes()], (16,) * 3, photometric=2), COLOURS >> 8, id="colours-tiff"),
        pytest.param(b"P5 4 2 65535\n" + DEEP.astype(">u2").tobytes(), DEEP >> 8, id="pgm"),
        pytest.param(b"P2 4 2 1000\n0 4 4 16 306 611 916 1000", DEEP >> 8, id="pgm-up-to-1000"),
        pytest.param(b"P5 4 2 50\n" + bytes([0, 0, 0, 1, 15, 31, 46, 50]), DEEP >> 8, id="pgm-up-to-50"),
        pytest.param(b"P6 4 2 65535\n" + COLOURS.astype(">u2").tobytes(), COLOURS >> 8, id="ppm"),
    ],
)
def test_deep_pictures_are_scaled_and_not_clamped(content: bytes, expected: np.ndarray, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(content)
    pixels = decode(str(tmp_path / "a"), 64).astype(int)
    wanted = expected if expected.ndim == 3 else np.stack([expected] * 3, axis=2)
    coarse = 3 if b" 50\n" in content else 1  # its own steps are of 5 levels
    assert abs(pixels - wanted).max() <= coarse
    if content[:1] != b"P":  # what a PGM says is white is rounded to
        assert np.array_equal(pixels, wanted)


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_deep_pictures_may_be_compressed(compression: str, tmp_path: Path) -> None:
    Image.fromarray(DEEP).save(tmp_path / "a.tif", compression=compression)
    assert np.array_equal(decode(str(tmp_path / "a.tif"), 64)[..., 1], DEEP >> 8)


def test_a_deep_picture_is_shrunk_after_it_is_scaled(tmp_path: Path) -> None:
    ramp = np.linspace(0, 60_000, 1600).reshape(40, 40).astype(np.uint16)
    Image.fromarray(ramp).save(tmp_path / "deep.png")
    Image.fromarray((ramp >> 8).astype(np.uint8)).save(tmp_path / "flat.png")
    assert np.array_equal(decode(str(tmp_path / "deep.png"), 10), decode(str(tmp_path / "flat.png"), 10))


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        pytest.param(tiff([DEEP.astype("<u4").tobytes()], (32,)), "mode I,", id="integers"),
        pytest.param(tiff([DEEP.astype("<i4").tobytes()], (32,), kind=2), r"signed .*\(mode I\)", id="signed"),
        pytest.param(tiff([DEEP.tobytes()], (16,), kind=2), r"signed .*\(mode I\)", id="signed-16"),
        pytest.param(tiff([DEEP.astype("u1").tobytes()], (8,), kind=2), r"signed .*\(mode L\)", id="signed-8"),
        pytest.param(
            tiff([DEEP.astype("<f4").tobytes()], (32,), kind=3), r"signed or floating samples \(mode F\)", id="floats"
        ),
        pytest.param(b"Pf\n4 2\n-1.0\n" + DEEP.astype("<f4").tobytes(), "mode F,", id="floats-pfm"),
        pytest.param(
            tiff([COLOURS[..., band].tobytes() for band in range(3)], (16,) * 3, photometric=2),
            r"16-bit samples plane after plane \(mode RGB\)",
            id="planes",
        ),
    ],
)
def test_pixels_of_unknown_scale_are_refused_by_mode(content: bytes, kind: str, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(content)
    assert re.search(f"has pixels of {kind}.*: convert it to 8 bits a channel", refusal(tmp_path / "a"))


def test_planes_of_eight_bits_are_read(tmp_path: Path) -> None:
    planes = [(COLOURS[..., band] >> 8).astype(np.uint8).tobytes() for band in range(3)]
    (tmp_path / "a").write_bytes(tiff(planes, (8,) * 3, photometric=2))
    assert np.array_equal(decode(str(tmp_path / "a"), 64), COLOURS >> 8)


def by_hand(mode: str, image: Image.Image) -> np.ndarray:
    """Red, green and blue of a picture of that mode, by what the mode's name says."""
    values = np.asarray(image).astype(float)
    if mode == "1":
        return np.dstack([255 * values] * 3)
    if mode in ("P", "PA"):
        rows = np.asarray(image.getchannel(0))
        return np.array(image.getpalette()).reshape(-1, 3)[rows]
    if mode == "CMYK":
        return (255 - values[..., :3]) * (255 - values[..., 3:]) / 255
    if mode == "YCbCr":
        luma, blue, red = values[..., 0], values[..., 1] - 128, values[..., 2] - 128
        return np.dstack([luma + 1.402 * red, luma - 0.344136 * blue - 0.714136 * red, luma + 1.772 * blue])
    if mode in ("L", "LA"):
        return np.dstack([values if mode == "L" else values[..., 0]] * 3)
    return values[..., :3]


def reads_back(path: Path) -> bool:
    try:
        with Image.open(path) as image:
            image.load()
    except OSError:
        return False
    return True


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [
        *(("1", suffix) for suffix in ("png", "tif", "bmp", "ppm")),
        *((mode, suffix) for mode in ("L", "RGB") for suffix in ("png", "tif", "bmp", "ppm")),
        *((mode, suffix) for mode in ("P", "LA", "RGBA") for suffix in ("png", "tif")),
        *((mode, "tif") for mode in ("PA", "RGBX", "CMYK", "YCbCr")),
    ],
)
def test_every_mode_by_hand(mode: str, suffix: str, tmp_path: Path) -> None:
    image = picture(20, 30, seed=1)
    if mode in ("LA", "RGBA", "PA"):  # what lies under transparency is kept
        image.putalpha(picture(20, 30, seed=2).convert("L"))
    image = image.convert(mode)
    path = tmp_path / f"a.{suffix}"
    image.save(path)
    if (mode, suffix) == ("YCbCr", "tif") and not reads_back(path):
        pytest.skip("this version of Pillow doesn't read the YCbCr TIFF files that it writes")
    assert abs(decode(str(path), 20) - by_hand(mode, image).clip(0, 255)).max() <= 1.5


def test_a_palette_with_transparency_keeps_its_colours(tmp_path: Path) -> None:
    image = picture(20, 30, seed=1).convert("P")
    for transparency in (3, bytes(range(0, 256, 2))):
        image.save(tmp_path / "a.png", transparency=transparency)
        assert np.array_equal(decode(str(tmp_path / "a.png"), 20), by_hand("P", image))


def test_lightness_and_colours_become_srgb(tmp_path: Path) -> None:
    # L* from 0 to 255, a* and b* signed; the white of the TIFF's LAB is D50. The last by the formulas of CIE and sRGB.
    values = [(0, 0, 0), (128, 0, 0), (255, 0, 0), (128, 40, 20)]
    lab = np.array(values * 2, dtype=np.int16).astype(np.uint8)
    (tmp_path / "a").write_bytes(tiff([lab.tobytes()], (8,) * 3, photometric=8))
    expected = np.array([(0, 0, 0), (119, 119, 119), (255, 255, 255), (186, 89, 88)])
    assert abs(decode(str(tmp_path / "a"), 20)[0].astype(int) - expected).max() <= 2


def test_the_first_of_several_pictures_is_taken(tmp_path: Path) -> None:
    first, second = picture(20, 30, seed=1), picture(20, 30, seed=2)
    for name in ("a.tif", "a.png", "a.webp"):
        kind = {"lossless": True} if name == "a.webp" else {}
        first.save(tmp_path / name, save_all=True, append_images=[second], **kind)
        assert np.array_equal(decode(str(tmp_path / name), 20), np.asarray(first))


def test_the_size_stands_in_the_head(tmp_path: Path) -> None:
    picture(20, 30, seed=1).save(tmp_path / "a.png")
    assert read_size(str(tmp_path / "a.png")) == (30, 20)
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"picture .*a\.png is not a picture"):
        read_size(str(tmp_path / "a.png"))


def test_remarks_of_the_decoder_are_kept_from_the_user(tmp_path: Path) -> None:
    image = picture(20, 30, seed=1).convert("P")
    image.save(tmp_path / "a.png", transparency=bytes(range(256)))
    with Image.open(tmp_path / "a.png") as opened, pytest.warns(UserWarning, match="Transparency"):
        opened.convert("RGB")
    assert decode(str(tmp_path / "a.png"), 20).shape == (20, 30, 3)


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


@pytest.mark.parametrize("kind", FORMATS)
def test_a_truncated_picture_is_broken(kind: str, tmp_path: Path) -> None:
    picture(64, 64, seed=1).save(tmp_path / "a.jpg", kind)
    content = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(content[: len(content) // 2])
    assert re.search(r"is broken \(|is not a picture in", refusal(tmp_path / "a.jpg"))


@pytest.mark.parametrize("head", ["P5 0 5 255\n", "P5 5 0 255\n", "P6 0 0 255\n"])
def test_a_picture_without_pixels_is_refused(head: str, tmp_path: Path) -> None:
    (tmp_path / "a.ppm").write_text(head)
    assert "is not a picture in" in refusal(tmp_path / "a.ppm")


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
