"""Reads the arrays of structures in a MAT-file of version 5: enough of the format for ImageNet's meta.mat.

The file is 128 bytes of header, then elements: a tag of two 32-bit words (type, bytes), the data, filling to 8 bytes.
Up to four bytes may stand in the second word instead, with their number in the upper half of the first. An element of
type 15 is another one, compressed; one of type 14 is an array, whose parts are elements again: flags, dimensions, name,
and the numbers, characters, or fields one after the other.

Source: "MAT-File Format", The MathWorks, chapter 1 (level 5).
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from typing import Any

from seqba.errors import UserError

HEADER_BYTES = 128
MATRIX, COMPRESSED = 14, 15
NUMBERS = {1: "b", 2: "B", 3: "h", 4: "H", 5: "i", 6: "I", 7: "f", 9: "d", 12: "q", 13: "Q"}
TEXTS = {1: "latin-1", 2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}
STRUCTURES, CHARACTERS = 2, 4
NUMERIC = range(6, 16)


class _Malformed(Exception):
    """What the bytes have instead of what the format asks for."""


def read_structures(data: bytes, name: str, where: str) -> list[dict[str, Any]]:
    """The array of structures `name` of a file, one dictionary from field to value each.

    A value is a text, a list of numbers, or None for what is of another kind (cells, objects, structures in fields).

    Args:
        data: the file.
        name: of the array.
        where: what the file is called in a complaint.

    Raises:
        UserError: for a file that is no MAT-file of version 5, damaged, or without this array.
    """
    if len(data) < HEADER_BYTES or data[126:128] not in (b"IM", b"MI"):
        raise UserError(f"{where} is not a MAT-file of version 5: take the one of the published archive")
    order = "<" if data[126:128] == b"IM" else ">"
    try:
        for kind, body in _elements(data[HEADER_BYTES:], order):
            if kind == COMPRESSED:
                kind, body = next(_elements(zlib.decompress(body), order))
            if kind == MATRIX and (found := _structures(body, order, name)) is not None:
                return found
    except (_Malformed, struct.error, zlib.error, StopIteration, ValueError, IndexError) as error:
        raise UserError(f"{where} is damaged ({error}): take it from the published archive again") from None
    raise UserError(f"{where} has no array of structures {name!r}: take the one of the published archive")


def _elements(data: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """The elements that some bytes consist of: (type, data)."""
    place = 0
    while place < len(data):
        kind, size = struct.unpack_from(order + "II", data, place)
        if kind >> 16:
            kind, size, start, step = kind & 0xFFFF, kind >> 16, place + 4, 8
        else:
            start = place + 8
            # Compressed elements follow each other without filling.
            step = 8 + (size if kind == COMPRESSED else -(-size // 8) * 8)
        if start + size > len(data):
            raise _Malformed(f"an element of {size} bytes where {len(data) - start} are left")
        yield kind, data[start : start + size]
        place += step


def _numbers(element: tuple[int, bytes], order: str) -> list[int | float]:
    kind, body = element
    if kind not in NUMBERS:
        raise _Malformed(f"numbers of the unknown type {kind}")
    code = NUMBERS[kind]
    return list(struct.unpack(f"{order}{len(body) // struct.calcsize(code)}{code}", body))


def _text(element: tuple[int, bytes], order: str) -> str:
    kind, body = element
    if kind not in TEXTS:
        raise _Malformed(f"text of the unknown type {kind}")
    encoding = TEXTS[kind]
    suffix = {"<": "-le", ">": "-be"}[order] if encoding in ("utf-16", "utf-32") else ""
    return body.decode(encoding + suffix)


def _head(body: bytes, order: str) -> tuple[int, int, str, Iterator[tuple[int, bytes]]]:
    """An array's class, how many elements it has, its name, and its further parts."""
    parts = _elements(body, order)
    kind = int(_numbers(next(parts), order)[0]) & 0xFF
    count = math.prod(int(size) for size in _numbers(next(parts), order))
    return kind, count, _text(next(parts), order), parts


def _structures(body: bytes, order: str, name: str) -> list[dict[str, Any]] | None:
    """The structures of an array, if it is the one called `name`."""
    kind, count, called, parts = _head(body, order)
    if kind != STRUCTURES or called != name:
        return None
    width = int(_numbers(next(parts), order)[0])
    joined = _text(next(parts), order)
    fields = [joined[start : start + width].rstrip("\0") for start in range(0, len(joined), width)]
    return [{field: _value(next(parts), order) for field in fields} for _ in range(count)]


def _value(element: tuple[int, bytes], order: str) -> Any:
    kind, body = element
    if kind != MATRIX:
        raise _Malformed(f"a field of type {kind}, which is no array")
    if not body:
        return []  # an empty array may be left without any parts
    what, count, _, parts = _head(body, order)
    if what == CHARACTERS:
        return _text(next(parts), order) if count else ""
    return _numbers(next(parts), order)[:count] if what in NUMERIC else None
