"""Files of pictures with more than 8 bits a sample, byte by byte: what Pillow itself doesn't write."""

from __future__ import annotations

import struct
import zlib

import numpy as np

DEEP = np.array([[0, 255, 256, 1000], [20_000, 40_000, 60_000, 65_535]], dtype=np.uint16)
"""Samples of 16 bits. Upper 8 of them: 0, 0, 1, 3 and 78, 156, 234, 255."""

COLOURS = np.stack([DEEP, DEEP[::-1], DEEP[:, ::-1]], axis=2)


def png(samples: np.ndarray, kind: int) -> bytes:
    """A PNG of 16 bits a sample, (H, W) or (H, W, samples)."""
    height, width = samples.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


def tiff(planes: list[bytes], bits: tuple[int, ...], *, photometric: int = 1, kind: int = 1, order: str = "<") -> bytes:
    """A TIFF of 4 × 2 pixels with the given tags: one plane of all samples, or a plane for each of them."""
    separate = len(planes) > 1
    tags = {256: [4], 257: [2], 258: list(bits), 259: [1], 262: [photometric], 273: [], 277: [len(bits)], 278: [2]}
    tags |= {279: [len(plane) for plane in planes], 284: [2 if separate else 1], 339: [kind] * len(bits)}
    place = start = 8 + 2 + 12 * len(tags) + 4 + 100  # 100 bytes for what doesn't fit into an entry
    for plane in planes:
        tags[273].append(place)
        place += len(plane)
    entries, values = b"", b""
    for tag, numbers in sorted(tags.items()):
        packed = struct.pack(f"{order}{len(numbers)}H", *numbers)
        if len(packed) > 4:
            value = struct.pack(f"{order}I", start - 100 + len(values))
            values += packed
        else:
            value = packed.ljust(4, b"\0")
        entries += struct.pack(f"{order}HHI", tag, 3, len(numbers)) + value
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, len(tags))
    return head + entries + bytes(4) + values.ljust(100, b"\0") + b"".join(planes)
