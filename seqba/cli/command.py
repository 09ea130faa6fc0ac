"""Error handling that all commands share: one clear line and exit status 2 for what a user can mend."""

from __future__ import annotations

import contextlib
import errno
import faulthandler
import io
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any, NoReturn

from seqba.cli.start import interrupt
from seqba.data.names import AS_GIVEN
from seqba.errors import RanksLost, UserError, one_line

Main = Callable[[Sequence[str] | None], int]

ENDINGS, IGNORED = (signal.SIGTERM, signal.SIGHUP), signal.SIG_IGN
"""Signals that end a command, the second one when its terminal closes; unless they are ignored, as under nohup."""


def run_process(main: Main) -> NoReturn:
    """Runs a command and ends the process; from its last line on Ctrl-C does that at once, without a traceback."""
    status = run(main)
    _end_at_once_by_ctrl_c()
    sys.exit(status)


def run(main: Main, arguments: Sequence[str] | None = None) -> int:
    """Runs a command's `main` and turns what users can mend into one line on stderr and exit status 2.

    Signals are handled on a stack of their own, which faulthandler sets: with torch 2.6 a signal during a float32
    product of oneDNN's on a processor with AVX-512 was seen to corrupt the heap, as if the stack pointed into it.

    Returns:
        The exit status: main's own; 2 for a user's mistake, a bad file or a full disk; 130 for Ctrl-C.
    """
    before: dict[signal.Signals, Any] = {signal.SIGINT: signal.getsignal(signal.SIGINT)}
    try:
        before.update(_prepare_process())
        return _flushed(main, arguments)
    except UserError as error:
        return _complain(str(error))
    except BrokenPipeError:
        return 141  # the reader went away (`| head`): not a mistake, and there is none left to tell
    except RanksLost as error:
        status = _complain(str(error))
        sys.stdout.flush()
        os._exit(status)  # what waits for the lost rank in the background may abort a process that ends as usual
    except KeyboardInterrupt:
        _end_at_once_by_ctrl_c()  # a second time
        print("interrupted", file=sys.stderr)
        return 130
    except OSError as error:
        return _complain(_describe(error))
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        reason = str(error).partition("\n")[0]
        return _complain(f"out of memory{f' ({reason})' if reason else ''}: take smaller batches or a smaller model")
    finally:
        _give_up_output()
        for number, handler in before.items():
            signal.signal(number, handler)


def _prepare_process() -> dict[signal.Signals, Any]:
    """Opens streams, has crashes told, and takes over signals that end a command; returns their former handlers."""
    _open_streams()
    if not faulthandler.is_enabled():
        faulthandler.enable(2)  # also where sys.stderr is no file
    return {number: signal.signal(number, _terminate) for number in ENDINGS if signal.getsignal(number) != IGNORED}


def _end_at_once_by_ctrl_c() -> None:
    if signal.getsignal(signal.SIGINT) in (signal.default_int_handler, interrupt):
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def _flushed(main: Main, arguments: Sequence[str] | None) -> int:
    """The status of `main`, all its output written: at the interpreter's end a reader that went away is a traceback."""
    try:
        status = main(arguments)
    except SystemExit:  # --help
        sys.stdout.flush()
        raise
    sys.stdout.flush()
    return status


def _give_up_output() -> None:
    """Drops output that can't be written: at the interpreter's end it would be an error of its own, of status 120."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _is_out_of_memory(error: Exception) -> bool:
    """Whether memory ran out, a device's included; where torch hasn't been imported it was no device's."""
    torch = sys.modules.get("torch")
    return isinstance(error, MemoryError) or (torch is not None and isinstance(error, torch.OutOfMemoryError))


def _terminate(number: int, _frame: FrameType | None) -> NoReturn:
    """Leaves as an exception does, so that what was being written is tidied away.

    A forked worker has this handler too, but nothing to tidy, and may hold a lock of its pool: it ends at once.
    """
    if multiprocessing.parent_process() is not None:
        os._exit(128 + number)
    sys.exit(128 + number)


def _open_streams() -> None:
    """Gives a closed standard stream a place to go, and all of them UTF-8, as every file here is.

    A file name that isn't UTF-8 goes out as it came in, byte for byte.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None or getattr(stream, "closed", False):
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 - lives as long as the process
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors=AS_GIVEN)


def _describe(error: OSError) -> str:
    where = f" ({error.filename})" if error.filename else ""
    if error.errno == errno.ENOSPC:
        return f"the disk is full{where}: free some space and run the same command again"
    folder = os.path.dirname(str(error.filename or ""))
    if error.errno == errno.ENOENT and folder and not os.path.exists(folder):
        return f"the folder of {error.filename} is gone: was it moved or removed while this ran?"
    return f"{error.strerror or error}{where}"


def _complain(line: str) -> int:
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    where = f"rank {os.environ.get('RANK', '?')}: " if several else ""
    with contextlib.suppress(OSError):  # a full disk may be stderr's, or its terminal closed
        print(f"error: {where}{one_line(line)}", file=sys.stderr)
    return 2
