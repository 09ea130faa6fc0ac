"""What stands for `python` in a preloaded environment: python -IS preloaded_client.py PYTHON SOCKET [ARGUMENT…].

It hands arguments, environment, folder, umask, limits and open files to the server at SOCKET, passes on the signals
that it gets, and ends as the process ended that the server forked for it. What no fork can be is left to PYTHON itself:
most options of the interpreter, and an environment that it, a package or the C library read once, as they start.
"""

from __future__ import annotations

import contextlib
import itertools
import marshal
import os
import resource
import signal
import socket
import struct
import sys
from types import FrameType

READ_ONCE = (
    *("PYTHON", "LD_", "LC_", "LANG", "MALLOC_", "OMP_", "MKL_", "ATEN_", "DNNL_", "ONEDNN_"),
    *("HF_", "TRANSFORMERS_"),
)
"""Beginnings of such variables; PYTHONPATH, which is a list of folders, isn't one."""

OPTIONS = ("-u", "-B")
"""Of the interpreter: output without a buffer, no files with bytecode."""

LIMITS = [getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")]

PASSED_ON = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


def read_once(environment: dict[str, str]) -> dict[str, str]:
    """The variables that a process can't take over after its start."""
    return {key: value for key, value in environment.items() if key.startswith(READ_ONCE) and key != "PYTHONPATH"}


def send(connection: socket.socket, what: object, files: list[int] | None = None) -> None:
    """Sends a value of plain types, with open files."""
    data = marshal.dumps(what)
    socket.send_fds(connection, [struct.pack("I", len(data))], files or [])
    connection.sendall(data)


def receive(connection: socket.socket, most_files: int = 0) -> tuple[object, list[int]]:
    """Receives such a value and its files; raises EOFError where the other end has gone."""
    header, files, *_ = socket.recv_fds(connection, 4, most_files)
    if not header:
        raise EOFError
    (length,) = struct.unpack("I", header)
    data = connection.recv(length, socket.MSG_WAITALL)
    if len(data) < length:
        raise EOFError
    return marshal.loads(data), files  # noqa: S302 - from this suite's own server


def main() -> int:
    """Returns the exit status, or dies by the signal that ended the fork."""
    python, address, *arguments = sys.argv[1:]
    server = socket.socket(socket.AF_UNIX)
    server.connect(address)
    theirs, _ = receive(server)
    options = list(itertools.takewhile(OPTIONS.__contains__, arguments))
    words = arguments[len(options) :]
    is_plain = bool(words) and (words[0] in ("-c", "-m") or not words[0].startswith("-"))
    if not is_plain or theirs != read_once(dict(os.environ)):
        os.execv(python, [python, *arguments])  # noqa: S606
    ignored = [int(number) for number in PASSED_ON if signal.getsignal(number) == signal.SIG_IGN]
    files = [number for number in map(int, os.listdir("/proc/self/fd")) if number != server.fileno()]
    files = [number for number in files if os.path.exists(f"/proc/self/fd/{number}")]  # not that of the list
    mask = os.umask(0)
    limits = {number: resource.getrlimit(number) for number in LIMITS}
    send(server, (options, words, dict(os.environ), os.getcwd(), mask, limits, files, ignored), files)

    def pass_on(number: int, _frame: FrameType | None) -> None:
        with contextlib.suppress(OSError):  # it has just ended
            server.send(bytes([number]))

    for number in PASSED_ON:
        if number not in ignored:
            signal.signal(number, pass_on)
    try:
        status, _ = receive(server)
    except EOFError:  # the suite has ended
        return 1
    assert isinstance(status, int)
    if status < 0:
        with contextlib.suppress(OSError):  # SIGKILL has no disposition
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    return status


if __name__ == "__main__":
    os._exit(main())
