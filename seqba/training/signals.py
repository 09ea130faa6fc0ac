"""Signals that stop a run: the first one asks, a second one ends the process at once."""

from __future__ import annotations

import os
import signal
from time import monotonic
from types import FrameType, TracebackType
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""Those that ask a run to stop, the last one when its terminal closes."""

ECHO_S = 5.0
"""Under torchrun a signal may come twice: Slurm sends it to every process, and torchrun hands on what it got."""


class StopSignal:
    """Context in which SIGTERM, SIGINT and SIGHUP only set a flag, which the loop reads between updates.

    One that is ignored, as SIGHUP is under nohup, stays so. The first signal gives all of them their default meaning
    back, so that a second one stops at once. Under torchrun, which kills by itself what takes too long, a second one
    within `ECHO_S` seconds is taken for the first. Must be entered in the main thread.

    Attributes:
        received: the signal that asked to stop, None so far.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._received_at = 0.0
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignal:
        """Takes over the signals."""
        heard = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
        self._previous = {number: signal.signal(number, self._receive) for number in heard}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Gives the signals their former meaning back."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def is_set(self) -> bool:
        """Whether a signal has asked to stop."""
        return self.received is not None

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        again = self.received is not None
        if again and monotonic() - self._received_at < ECHO_S:
            return
        if not again:
            self.received = signal.Signals(number)
            self._received_at = monotonic()
            if "TORCHELASTIC_RUN_ID" in os.environ:
                return
        for each in self._previous:
            signal.signal(each, signal.SIG_DFL)
        if again:
            os.kill(os.getpid(), number)
