"""The bytes of small MAT-files, put together by hand."""

from __future__ import annotations

import struct

HEADER = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"
FIELD_BYTES = 32


def element(kind: int, data: bytes) -> bytes:
    """An element with its tag, filled up to eight bytes."""
    return struct.pack("<II", kind, len(data)) + data + b"\0" * (-len(data) % 8)


def array(what: int, sizes: tuple[int, ...], name: str, *parts: bytes) -> bytes:
    """An array of a class: 1 cells, 2 structures, 4 characters, 6 numbers."""
    flags = element(6, struct.pack("<II", what, 0))
    head = flags + element(5, struct.pack(f"<{len(sizes)}i", *sizes)) + element(1, name.encode())
    return element(14, head + b"".join(parts))


def numbers(*values: float) -> bytes:
    """A row of numbers."""
    return array(6, (1, len(values)), "", element(9, struct.pack(f"<{len(values)}d", *values)))


def text(value: str) -> bytes:
    """A row of characters."""
    return array(4, (1, len(value)), "", element(4, value.encode("utf-16-le")))


def structures(name: str, fields: list[str], *values: bytes) -> bytes:
    """An array of structures, whose values come one structure after the other."""
    names = b"".join(field.encode().ljust(FIELD_BYTES, b"\0") for field in fields)
    # The length of a name in a small element: type and size in one word, data in the other.
    width = struct.pack("<HHi", 5, 4, FIELD_BYTES)
    return array(2, (len(values) // len(fields), 1), name, width, element(1, names), *values)


def mat_file(name: str, fields: list[str], *values: bytes) -> bytes:
    """A file with one array of structures."""
    return HEADER + structures(name, fields, *values)
