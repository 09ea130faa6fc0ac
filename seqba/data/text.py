"""Text files in pieces: found without reading them, read by any process, worked on in order."""

from __future__ import annotations

import itertools
import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from seqba.data.files import not_utf8, open_file
from seqba.errors import UserError

PIECE_BYTES = 1 << 22
REMEDY = "check the prefix and the language"

Result = TypeVar("Result")


@dataclass(frozen=True)
class Piece:
    """Whole lines of a text file: its bytes from `start` up to `end`."""

    path: Path
    start: int
    end: int

    def lines(self) -> list[str]:
        """The lines, without their ends, which may be those of Unix, Windows or old Macs (as Python's text mode).

        Raises:
            UserError: if the bytes are not UTF-8; the message names the line.
        """
        with open_file(self.path, "text", REMEDY) as file:
            file.seek(self.start)
            data = file.read(self.end - self.start)
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError as error:
            number = count_lines(self.path, self.start + error.start)
            raise UserError(not_utf8(f"text {self.path}", number + 1, data[error.start])) from None
        lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
        if lines[-1] == "":  # what follows the last line's end is not a line
            lines.pop()
        return lines


def split_text(path: str | Path, piece_bytes: int = PIECE_BYTES) -> list[Piece]:
    """Divides a text file into pieces of about `piece_bytes`, cut after newlines.

    The pieces depend on the file alone, never on the number of workers. A line longer than a piece stays whole.

    Raises:
        UserError: if the file cannot be read.
    """
    path = Path(path)
    with open_file(path, "text", REMEDY) as file:
        size = file.seek(0, 2)
        cuts = [0]
        while cuts[-1] < size:
            file.seek(min(cuts[-1] + piece_bytes, size))
            file.readline()
            cuts.append(file.tell())
    return [Piece(path, start, end) for start, end in itertools.pairwise(cuts)]


def count_lines(path: str | Path, end: int | None = None) -> int:
    """Number of lines as `Piece.lines` sees them; with `end`, how many line ends are complete before that byte.

    Raises:
        UserError: if the file cannot be read.
    """
    count, done, last = 0, 0, b""
    with open_file(path, "text", REMEDY) as file:
        while block := file.read(PIECE_BYTES if end is None else min(PIECE_BYTES, end - done)):
            count += block.count(b"\n")
            if b"\r" in block:
                count += block.count(b"\r") - block.count(b"\r\n")
            if last == b"\r" and block.startswith(b"\n"):
                count -= 1  # one line end, cut in two by the blocks
            done += len(block)
            last = block[-1:]
    return count + (end is None and last not in (b"", b"\n", b"\r"))


def _leave_ctrl_c_alone() -> None:
    """A terminal sends Ctrl-C to every process of a command; the parent ends its workers itself."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


class Workers:
    """Processes that work on pieces of text; a context manager. They start when there is enough work for two.

    Args:
        count: number of processes; 1 works in this one.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Workers:
        """Starts nothing yet."""
        return self

    def __exit__(self, *error: object) -> None:
        """Waits for what is under way and ends the processes."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None

    def map(self, function: Callable[[Piece], Result], pieces: Sequence[Piece]) -> Iterator[tuple[Piece, Result]]:
        """Applies a function to every piece and yields (piece, result) in order, whatever process finishes first.

        At most two pieces a worker are under way, so that results never pile up in memory.

        Args:
            function: what to do; with several workers it must survive pickling.
            pieces: the work.

        Raises:
            UserError: what `function` raised, or that a worker was killed.
        """
        if self.count == 1 or len(pieces) <= 1:
            for piece in pieces:
                yield piece, function(piece)
            return
        pool = self._start()
        under_way: deque[tuple[Piece, Future[Result]]] = deque()
        try:
            for piece in pieces:
                under_way.append((piece, pool.submit(function, piece)))
                if len(under_way) >= 2 * self.count:
                    first, future = under_way.popleft()
                    yield first, future.result()
            for first, future in under_way:
                yield first, future.result()
        except BrokenProcessPool:
            raise UserError("a worker process was killed, perhaps for lack of memory; use fewer --workers") from None

    def _start(self) -> ProcessPoolExecutor:
        if self._pool is None:
            # Fresh interpreters: forking a process that has threads (torch's, a progress bar's) can deadlock.
            self._pool = ProcessPoolExecutor(
                self.count, mp_context=multiprocessing.get_context("spawn"), initializer=_leave_ctrl_c_alone
            )
        return self._pool
