"""The commands as they are installed: Ctrl-C gives one line from here on, also while a command is being imported."""

from __future__ import annotations

import contextlib
import os
import signal
from functools import partial
from importlib import import_module
from types import FrameType


def start(command: str) -> None:
    """Imports a command of `seqba.cli` and runs it, with `interrupt` in the place of Python's own handler of Ctrl-C."""
    if signal.getsignal(signal.SIGINT) == signal.default_int_handler:  # it is ignored behind a shell's `&`
        signal.signal(signal.SIGINT, interrupt)
    import_module(f"seqba.cli.{command}").entry()


advise = partial(start, "advise")
average_checkpoints = partial(start, "average_checkpoints")
eval_image = partial(start, "eval_image")
eval_lm = partial(start, "eval_lm")
export = partial(start, "export")
generate = partial(start, "generate")
interactive = partial(start, "interactive")
measure = partial(start, "measure")
plot = partial(start, "plot")
preprocess = partial(start, "preprocess")
score = partial(start, "score")
train = partial(start, "train")


def interrupt(number: int, frame: FrameType | None) -> None:
    """Raises KeyboardInterrupt; while a command, or what it needs for its work, is imported, ends the process at once.

    In an import the exception would be a traceback, and libraries turn it into other exceptions. There is nothing to
    tidy away yet.
    """
    if _is_import_of_a_command(frame):
        with contextlib.suppress(OSError):
            os.write(2, b"interrupted\n")
        os._exit(128 + number)
    signal.default_int_handler(number, frame)


def _is_import_of_a_command(frame: FrameType | None) -> bool:
    """Whether the outermost import that is going on was asked for by this file or by that of a command."""
    asks = None
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            asks = frame.f_back
        frame = frame.f_back
    while asks is not None and asks.f_globals.get("__name__") == import_module.__module__:
        asks = asks.f_back
    return asks is not None and asks.f_globals.get("__name__", "").rpartition(".")[0] == __package__
