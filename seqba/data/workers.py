"""Processes that work on pieces of text."""

from __future__ import annotations

import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from seqba.data.text import TextPiece
from seqba.errors import UserError


def _leave_ctrl_c_alone() -> None:
    """A terminal sends Ctrl-C to every process of a command; the parent ends its workers itself."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


Result = TypeVar("Result")
PieceT = TypeVar("PieceT", bound=TextPiece)


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

    def map(self, function: Callable[[PieceT], Result], pieces: Sequence[PieceT]) -> Iterator[tuple[PieceT, Result]]:
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
        under_way: deque[tuple[PieceT, Future[Result]]] = deque()
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
