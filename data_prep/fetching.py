"""Downloads that can be stopped and called again: resumed where they stopped, checked, and renamed only when whole."""

from __future__ import annotations

import hashlib
import http.client
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from tqdm import tqdm

from seqba.cli.command import run
from seqba.errors import UserError

BLOCK_BYTES = 1 << 20
TIMEOUT_S = 60
LONG_BYTES = 1 << 30
"""A file of which checking takes seconds: a terminal shows how far it is."""


@dataclass(frozen=True)
class Source:
    """A public file.

    Attributes:
        url: where it is.
        digest: what it must be, as `sha256:…` or `md5:…` (whichever its users have published).
        size_bytes: its length where known, for the progress line.
    """

    url: str
    digest: str
    size_bytes: int | None = None

    @property
    def name(self) -> str:
        """The file's name, the last part of the URL."""
        return self.url.rsplit("/", 1)[-1]


def fetch(source: Source, folder: Path) -> Path:
    """The source as a checked file in `folder`: already there, or downloaded now.

    A download grows in `NAME.part`, which a second call continues, and takes its name only once its digest is right.

    Raises:
        UserError: when the server cannot be reached or answers with something else than the known file.
    """
    path = folder / source.name
    if path.exists():
        verify(path, source.digest)
        return path
    part = folder / f"{source.name}.part"
    folder.mkdir(parents=True, exist_ok=True)
    _say(f"downloading {source.url}" + (f" ({source.size_bytes / 1e6:.0f} MB)" if source.size_bytes else ""))
    try:
        _download(source.url, part)
    except _NetworkError as error:
        raise UserError(
            f"cannot download {source.url}: {error}; run the same command again to go on from here, or fetch the file "
            "by other means and give its folder with --from"
        ) from None
    try:
        verify(part, source.digest)
    except UserError:
        part.unlink()
        raise
    os.replace(part, path)
    return path


def verify(path: Path, digest: str) -> None:
    """Checks a file against its published digest.

    Raises:
        UserError: when it is another file.
    """
    algorithm, _, expected = digest.partition(":")
    found = hashlib.new(algorithm, usedforsecurity=False)
    size = path.stat().st_size
    hidden = None if size > LONG_BYTES else True  # None: hidden unless stderr is a terminal
    with (
        open(path, "rb") as stream,
        tqdm(total=size, desc=f"checking {path.name}", unit="B", unit_scale=True, leave=False, disable=hidden) as bar,
    ):
        while block := stream.read(BLOCK_BYTES):
            found.update(block)
            bar.update(len(block))
    if found.hexdigest() != expected:
        raise UserError(
            f"{path}: {algorithm} is {found.hexdigest()}, not the published {expected}: truncated, or changed at its "
            "source; remove it and try again"
        )


def main_entry(main: Callable[[Sequence[str] | None], int]) -> None:
    """Runs a script of this folder as seqba's commands run: one clear line and status 2 for what a user can mend."""
    sys.exit(run(main))


def refuse(line: str) -> NoReturn:
    """Ends a script before its work with one line on stderr and exit status 2."""
    _say(f"error: {line}")
    sys.exit(2)


class _NetworkError(Exception):
    """The other side's fault, unlike an `OSError` of our own disk."""


def _download(url: str, part: Path) -> None:
    """Lets `part` grow to the whole file: from where it ends, or afresh where a server cannot resume."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"User-Agent": "seqba"})  # noqa: S310 - the URLs stand in our tables
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        response: Any = urllib.request.urlopen(request, timeout=TIMEOUT_S)  # noqa: S310
    except urllib.error.HTTPError as error:
        if have and error.code == 416:  # nothing beyond what we have: whole or wrong, which the digest will tell
            return
        raise _NetworkError(str(error)) from None
    except (OSError, http.client.HTTPException) as error:
        raise _NetworkError(str(getattr(error, "reason", error))) from None
    with response:
        resumed = have > 0 and getattr(response, "status", None) == 206
        with open(part, "ab" if resumed else "wb") as stream:
            _copy(response, stream, have if resumed else 0)


def _copy(response: Any, stream: BinaryIO, have: int) -> None:
    length = response.headers.get("Content-Length")
    expected = have + int(length) if length is not None else None
    while block := _read(response):
        stream.write(block)
        have += len(block)
        if sys.stderr.isatty():
            of = f" of {expected / 1e6:.0f}" if expected else ""
            print(f"\r  {have / 1e6:.0f}{of} MB", end="", file=sys.stderr, flush=True)
    stream.flush()
    os.fsync(stream.fileno())
    if sys.stderr.isatty():
        print(file=sys.stderr)
    if expected is not None and have < expected:
        raise _NetworkError(f"the connection ended after {have:,} of {expected:,} bytes")


def _read(response: Any) -> bytes:
    try:
        block: bytes = response.read(BLOCK_BYTES)
    except (OSError, http.client.HTTPException) as error:
        raise _NetworkError(str(error) or type(error).__name__) from None
    return block


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
