"""Check of a file before torch reads it: the archive of a checkpoint, whole and undamaged, or something else.

torch's reader trusts what it reads: it skips the check sums of the archive, and believes a pickle about how many
numbers a record holds. Everything that isn't a checkpoint, or no longer one, is found out here.
"""

from __future__ import annotations

import math
import os
import pickle
import stat
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

from seqba.data.files import open_file
from seqba.errors import UserError

MAGIC = b"PK\x03\x04"
CHUNK = 1 << 24
LARGEST_PICKLE = 1 << 28
"""Bytes of the pickle that describes the tensors; a real one has some kilobytes."""

ELEMENT_BYTES = {
    **dict.fromkeys(("UntypedStorage", "ByteStorage", "CharStorage", "BoolStorage"), 1),
    **dict.fromkeys(("HalfStorage", "BFloat16Storage", "ShortStorage"), 2),
    **dict.fromkeys(("FloatStorage", "IntStorage"), 4),
    **dict.fromkeys(("DoubleStorage", "LongStorage", "ComplexFloatStorage"), 8),
    "ComplexDoubleStorage": 16,
}
"""Bytes of an element, by the names that torch has for storages in a pickle."""

OTHER_KINDS = (
    (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "a file of torch's format before version 1.6"),
    (b"\x80", "a plain pickle, which could run code"),
    (b"\x89PNG", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"MMIDIDX", "the index of a data-bin"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\x89HDF", "an HDF5 file"),
)


def open_archive(path: str | Path) -> BinaryIO:
    """Opens a checkpoint's file, proven to be one that torch can read safely, at its beginning.

    Raises:
        UserError: for any other file, telling what it is, and for a damaged one.
    """
    _check_is_file(path)
    file = open_file(path, "checkpoint")
    try:
        _check_magic(file, path)
        try:
            _check_records(file)
        except UserError:
            raise
        except Exception:  # zipfile and pickle raise whatever the bytes lead them to
            raise UserError(unreadable(path)) from None
        file.seek(0)
    except BaseException:
        file.close()
        raise
    return file


def unreadable(path: str | Path) -> str:
    """Message for a file that is damaged."""
    return f"checkpoint {path} is truncated or not a checkpoint; restore it from a copy, or delete it to start anew"


def _check_is_file(path: str | Path) -> None:
    """Refuses pipes and devices before they are opened: they can't be read twice, and some are never at an end."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return  # which opening tells
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise UserError(f"checkpoint {path} is a pipe or a device, not a file: copy it into a file first")


def _check_magic(file: BinaryIO, path: str | Path) -> None:
    head = file.read(512)
    if head.startswith(MAGIC):
        return
    if not head:
        raise UserError(f"checkpoint {path} is empty; restore it from a copy, or delete it to start anew")
    kind = next((kind for magic, kind in OTHER_KINDS if head.startswith(magic)), None)
    if kind is None and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 27:
        kind = "a safetensors file, which has weights and nothing else of a run"
    if kind is None and _is_text(head):
        kind = "text"
    if kind is None:
        raise UserError(unreadable(path))
    raise UserError(f"checkpoint {path} is none, but {kind}: give a file that seqba-train wrote")


def _is_text(head: bytes) -> bool:
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        text = head[: error.start].decode("utf-8") if error.start > len(head) - 4 else "\0"
    return all(letter.isprintable() or letter.isspace() for letter in text)


def _check_records(file: BinaryIO) -> None:
    """Reads the whole archive once, and compares what it says of itself with what is in it.

    Raises:
        ValueError: for records that don't fit each other; anything for bytes that are no archive.
    """
    with zipfile.ZipFile(file) as archive:
        records = {}
        for record in archive.infolist():
            if record.compress_type != zipfile.ZIP_STORED or record.filename in records:
                raise ValueError("a record is compressed, or there twice")
            records[record.filename] = record.file_size
            with archive.open(record) as content:
                while content.read(CHUNK):  # zipfile compares the check sum at the end
                    pass
        (pickled,) = (name for name in records if name.endswith("data.pkl"))
        if records[pickled] > LARGEST_PICKLE:
            raise ValueError("the description of the tensors is too long")
        folder = pickled.removesuffix("data.pkl")
        if records.get(f"{folder}byteorder", 6) and archive.read(f"{folder}byteorder") not in (b"little", b"big"):
            raise ValueError("the order of bytes is unknown")
        with archive.open(pickled) as description:
            _Description(description, folder, records).load()


class _Anything(dict[Any, Any]):
    """Stand-in for any object of a pickle: accepts every call and does nothing."""

    def __init__(self, *_: object) -> None:
        super().__init__()

    def __hash__(self) -> int:  # type: ignore[override]
        """Hash of the object itself, so that it may be a key."""
        return id(self)

    def __setstate__(self, state: object) -> None:
        """Ignores the state."""


class _Description(pickle._Unpickler):
    """Unpickler that makes nothing, but compares tensors with the records that hold their numbers.

    Python's own unpickler rather than the one in C, which sets aside as much memory as a damaged file tells it to.
    """

    def __init__(self, file: Any, folder: str, records: dict[str, int]) -> None:
        super().__init__(file)
        self._folder = folder
        self._records = records

    def find_class(self, module: str, name: str) -> Any:
        """Stand-in for every class; torch itself refuses what isn't plain."""
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _check_tensor
        return name if module == "torch" and name in ELEMENT_BYTES else _Anything

    def persistent_load(self, pid: Any) -> Any:
        """The number of elements of a storage, if its record has as many."""
        _, kind, key, _, count = pid
        if type(count) is not int or self._records[f"{self._folder}data/{key}"] != count * ELEMENT_BYTES[kind]:
            raise ValueError("a storage is not as long as its record")
        return count


def _check_tensor(count: int, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: object) -> _Anything:
    """Refuses a tensor of more elements than its storage has, as no model's is."""
    if not 0 <= offset <= count or math.prod(size) > count or min((*size, *stride, 0)) < 0:
        raise ValueError("a tensor is larger than its storage")
    return _Anything()
