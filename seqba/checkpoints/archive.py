"""Checkpoint files as torch writes them: the archive of today and the file of before version 1.6.

torch's readers trust what they read: they skip the check sums of the archive, and believe a pickle about how many
numbers a record holds. Here everything that isn't a checkpoint, or no longer one, is found out while it is read.
"""

from __future__ import annotations

import os
import stat
import zipfile
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import torch
from torch import Tensor

from seqba.checkpoints.plain_pickle import PlainUnpickler
from seqba.data.files import open_file
from seqba.errors import UserError

MAGIC = b"PK\x03\x04"
OLDER_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""The pickle of a number with which torch's format before version 1.6 begins."""

CHUNK = 1 << 24
LARGEST_PICKLE = 1 << 28
"""Bytes of the pickle that describes the tensors; a real one has some kilobytes."""

OTHER_KINDS = (
    (b"\x80", "a plain pickle, which could run code"),
    (b"\x89PNG", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"MMIDIDX", "the index of a data-bin"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\x89HDF", "an HDF5 file"),
)


def read_archive(path: str | Path) -> tuple[Any, list[str]]:
    """Reads what `torch.save` wrote into CPU memory; nothing in the file is run.

    Returns:
        The object, in which whatever is neither tensor nor plain value is a `Foreign`, and the origins of those.

    Raises:
        UserError: for any other file, telling what it is, and for a damaged one.
    """
    _check_is_file(path)
    with open_file(path, "checkpoint") as file:
        older = _is_of_older_format(file, path)
        file.seek(0)
        try:
            return _read_older(file) if older else _read_records(file)
        except UserError:
            raise
        except Exception:  # zipfile, pickle and torch raise whatever the bytes lead them to
            raise UserError(unreadable(path)) from None


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


def _is_of_older_format(file: BinaryIO, path: str | Path) -> bool:
    head = file.read(512)
    if head.startswith((MAGIC, OLDER_MAGIC)):
        return head.startswith(OLDER_MAGIC)
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


def _read_records(file: BinaryIO) -> tuple[Any, list[str]]:
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
        (pickled,) = (name for name in records if name.endswith("data.pkl"))
        if records[pickled] > LARGEST_PICKLE:
            raise ValueError("the description of the tensors is too long")
        folder = pickled.removesuffix("data.pkl")
        if records.get(f"{folder}byteorder", 6) and archive.read(f"{folder}byteorder") != b"little":
            raise ValueError("the order of bytes is unknown")
        storages: dict[str, Tensor] = {}

        def storage(dtype: torch.dtype, key: str, count: int) -> Tensor:
            name = f"{folder}data/{key}"
            if records[name] != count * dtype.itemsize:
                raise ValueError("a storage is not as long as its record")
            if name not in storages:
                with archive.open(name) as content:
                    storages[name] = _read_bytes(content, records[name])
                    content.read(1)  # zipfile compares the check sum at the end
            return storages[name].view(dtype)

        with archive.open(pickled) as description:
            unpickler = PlainUnpickler(description, storage)
            state = unpickler.load()
        for name in records.keys() - storages.keys():
            with archive.open(name) as content:
                while content.read(CHUNK):
                    pass
    return state, unpickler.foreign


def _read_older(file: BinaryIO) -> tuple[Any, list[str]]:
    """Reads torch's format before version 1.6: pickles one after the other, then the numbers.

    Raises:
        ValueError: for parts that don't fit each other; anything for bytes that are no pickle.
    """
    size = os.fstat(file.fileno()).st_size
    storages: dict[str, Tensor] = {}

    def storage(dtype: torch.dtype, key: str, count: int) -> Tensor:
        if key not in storages:
            if sum(map(len, storages.values())) + count * dtype.itemsize > size:
                raise ValueError("the tensors are larger than the file")
            storages[key] = torch.empty(count * dtype.itemsize, dtype=torch.uint8)
        if len(storages[key]) != count * dtype.itemsize:
            raise ValueError("a storage is described in two ways")
        return storages[key].view(dtype)

    _, version, system = (PlainUnpickler(file, storage).load() for _ in range(3))
    if version != 1001 or not system["little_endian"]:
        raise ValueError("the version or the order of bytes is unknown")
    unpickler = PlainUnpickler(file, storage)
    state = unpickler.load()
    keys = PlainUnpickler(file, storage).load()
    if sorted(keys) != sorted(storages):
        raise ValueError("a storage has no numbers")
    for key in keys:
        elements = int.from_bytes(file.read(8), "little")
        if elements and len(storages[key]) % elements:
            raise ValueError("a storage is of another length")
        storages[key].copy_(_read_bytes(file, len(storages[key])))
    return state, unpickler.foreign


def _read_bytes(file: IO[bytes], size: int) -> Tensor:
    numbers = torch.empty(size, dtype=torch.uint8)
    if size and cast(BinaryIO, file).readinto(numbers.numpy()) != size:  # type: ignore[attr-defined]
        raise ValueError("the file ends too early")
    return numbers
