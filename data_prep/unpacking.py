"""Reading what a user has or a download brought: plain files, .gz, and the members of .tgz and .zip archives."""

from __future__ import annotations

import gzip
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from seqba.errors import UserError

DAMAGE = (EOFError, gzip.BadGzipFile, zlib.error, tarfile.TarError, zipfile.BadZipFile)


def find(folder: Path, names: Sequence[str], *, takes: str) -> Path:
    """The first of `names` that is a file in a folder.

    Args:
        folder: what a user gave as --from.
        names: in the order of preference.
        takes: what --from takes a folder with, to end the complaint with.

    Raises:
        UserError: when none is there.
    """
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise UserError(f"{folder}: neither {' nor '.join(names)} is there; --from takes a folder with {takes}")


@contextmanager
def opened(path: Path, member: str | None = None) -> Iterator[IO[bytes]]:
    """The bytes of a file, unpacked if it ends in .gz; with `member`, of that file in a .zip or gzipped tar archive.

    What is damaged may show only while it is read: the whole `with` block reports it.

    Raises:
        UserError: for a damaged file, or an archive without the member.
    """
    kind = "gzip file" if member is None else "zip archive" if path.suffix == ".zip" else "tar archive"
    try:
        if member is None:
            with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
                yield stream
        elif path.suffix == ".zip":
            with _zip_member(path, member) as stream:
                yield stream
        else:
            with _tar_member(path, member) as stream:
                yield stream
    except DAMAGE as error:
        raise UserError(f"{path}: not a whole {kind} ({error}); remove it and fetch it again") from None


@contextmanager
def opened_tar(path: Path) -> Iterator[Iterator[tuple[str, int, IO[bytes]]]]:
    """The files of a tar archive, compressed or not, in one pass: name, bytes, content, to be read before the next.

    What is damaged may show only while it is read: the whole `with` block reports it.

    Raises:
        UserError: for a damaged archive.
    """
    try:
        with tarfile.open(path) as archive:
            yield tar_files(archive)
    except DAMAGE as error:
        raise UserError(f"{path}: not a whole tar archive ({error}); remove it and fetch it again") from None


def tar_files(archive: tarfile.TarFile) -> Iterator[tuple[str, int, IO[bytes]]]:
    """Name, bytes and content of the files of an open archive; folders and links are passed over."""
    for entry in archive:
        if entry.isfile() and (stream := archive.extractfile(entry)) is not None:
            yield entry.name.removeprefix("./"), entry.size, stream


@contextmanager
def _zip_member(path: Path, member: str) -> Iterator[IO[bytes]]:
    with zipfile.ZipFile(path) as archive:
        if member not in archive.namelist():
            raise UserError(f"{path}: there is no {member} in it")
        with archive.open(member) as stream:
            yield stream


@contextmanager
def _tar_member(path: Path, member: str) -> Iterator[IO[bytes]]:
    with tarfile.open(path, "r:gz") as archive:
        for entry in archive:
            if entry.name.removeprefix("./") == member and (stream := archive.extractfile(entry)) is not None:
                yield stream
                return
    raise UserError(f"{path}: there is no {member} in it")
