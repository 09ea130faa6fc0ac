"""Forks, for each command of a preloaded environment, a process that finds everything imported.

python preloaded_server.py SOCKET PYTHON    # until its stdin ends; PYTHON is what forks take for their interpreter
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import gc
import importlib
import io
import multiprocessing
import os
import pkgutil
import resource
import runpy
import selectors
import signal
import socket
import sys
import tempfile
import threading
import time
import types
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy
import sacrebleu  # noqa: F401 - for what imports it late
import torch.distributed.run
from preloaded_client import PASSED_ON, read_once, receive, send

import seqba

WITH_EXTRAS = ("seqba.integrations", "seqba.plotting")
"""Parts of seqba that import what few commands need."""


@dataclass(frozen=True)
class Command:
    """What a client asks for.

    Attributes:
        options: of the interpreter.
        words: `-c CODE`, `-m MODULE` or a script, and arguments.
        environment: all variables.
        folder: where it is.
        mask: of the permissions of new files.
        limits: soft and hard, by the number of the resource.
        numbers: of its open files.
        ignored: signals.
        files: the open files, under the numbers that they were received by.
    """

    options: list[str]
    words: list[str]
    environment: dict[str, str]
    folder: str
    mask: int
    limits: dict[int, tuple[int, int]]
    numbers: list[int]
    ignored: list[int]
    files: list[int]


class Server:
    """Clients, and the process that each of them stands for."""

    def __init__(self, address: str) -> None:
        self._selector = selectors.DefaultSelector()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(address)
        self._listener.listen(64)
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        self._selector.register(0, selectors.EVENT_READ, sys.exit)

    def serve(self) -> Command:
        """Returns in forks alone, with what they are to be."""
        while True:
            (key, _), *_others = self._selector.select()  # one at a time: it may be the end of another one
            command = key.data()
            if command is not None:
                return command

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        with contextlib.suppress(OSError):  # it has gone, as is seen when it is heard
            send(client, read_once(dict(os.environ)))
        self._selector.register(client, selectors.EVENT_READ, lambda: self._fork(client))

    def _fork(self, client: socket.socket) -> Command | None:
        self._selector.unregister(client)
        try:
            asked, files = receive(client, most_files=250)
        except (EOFError, OSError):  # it runs PYTHON itself, or was killed
            client.close()
            return None
        child = os.fork()
        if child == 0:
            client.close()
            return Command(*asked, files)  # type: ignore[misc]
        for file in files:
            os.close(file)
        ended = os.pidfd_open(child)
        self._selector.register(client, selectors.EVENT_READ, lambda: self._pass_on(client, child))
        self._selector.register(ended, selectors.EVENT_READ, lambda: self._tell(client, child, ended))
        return None

    def _pass_on(self, client: socket.socket, child: int) -> None:
        """Passes a signal on; SIGKILL for a client that has gone."""
        numbers = b""
        with contextlib.suppress(OSError):
            numbers = client.recv(64)
        if not numbers:
            self._selector.unregister(client)
        for number in numbers or [signal.SIGKILL]:
            os.kill(child, number)

    def _tell(self, client: socket.socket, child: int, ended: int) -> None:
        _, status = os.waitpid(child, 0)
        with contextlib.suppress(OSError):
            send(client, os.waitstatus_to_exitcode(status))
        for file in (client, ended):
            with contextlib.suppress(KeyError):
                self._selector.unregister(file)
        client.close()
        os.close(ended)

    def close(self) -> None:
        """Closes what a fork has of the server."""
        for key in list(self._selector.get_map().values()):
            if isinstance(key.fileobj, socket.socket):
                key.fileobj.close()
            elif key.fd:
                os.close(key.fd)
        self._selector.close()


def preload() -> None:
    """Imports all that commands do, and what torch itself imports late; starts no thread."""
    for module in pkgutil.walk_packages(seqba.__path__, "seqba."):
        if not module.name.startswith(WITH_EXTRAS):
            with contextlib.suppress(ModuleNotFoundError):  # Triton, where there is no GPU
                importlib.import_module(module.name)
    with contextlib.suppress(ModuleNotFoundError):
        importlib.import_module("transformers.models.marian.modeling_marian")  # what benchmarks compare with
    torch.optim.SGD([torch.zeros(1)])  # the first optimizer of a process imports half of torch
    gc.collect()
    gc.freeze()  # forks share these objects to their end


def take_over(command: Command) -> None:
    """Gives this fork what the client's process has (files, folder, environment, limits, signals) and its own seeds."""
    above = max((*command.numbers, *command.files, 2)) + 1
    kept = [fcntl.fcntl(file, fcntl.F_DUPFD_CLOEXEC, above) for file in command.files]
    os.closerange(0, above)
    for file, number in zip(kept, command.numbers, strict=True):
        os.dup2(file, number)
        os.close(file)
    unbuffered = "-u" in command.options or bool(command.environment.get("PYTHONUNBUFFERED"))
    sys.dont_write_bytecode |= "-B" in command.options
    sys.stdin = sys.__stdin__ = stream(0, "r", "surrogateescape")
    sys.stdout = sys.__stdout__ = stream(1, "w", "surrogateescape", unbuffered)
    sys.stderr = sys.__stderr__ = stream(2, "w", "backslashreplace", unbuffered)
    os.chdir(command.folder)
    os.environ.clear()
    os.environ.update(command.environment)
    os.umask(command.mask)
    for number, limit in command.limits.items():
        if limit != resource.getrlimit(number):
            resource.setrlimit(number, limit)
    time.tzset()
    tempfile.tempdir = None  # asked for while modules were imported, and kept
    numpy.random.seed()  # noqa: NPY002 - as of a new process; random's own does so by itself
    torch.seed()
    for number in PASSED_ON:
        is_interrupt = number == signal.SIGINT
        usual = signal.default_int_handler if is_interrupt else signal.SIG_DFL
        signal.signal(number, signal.SIG_IGN if number in command.ignored else usual)


def stream(number: int, mode: str, errors: str, unbuffered: bool = False) -> io.TextIOWrapper | None:
    """A standard stream as the interpreter opens it; None for one that is closed."""
    try:
        binary = open(number, mode + "b", 0 if unbuffered else -1, closefd=False)  # noqa: SIM115
    except OSError:
        return None
    is_line_buffered = number == 2 or binary.isatty()
    return io.TextIOWrapper(binary, "utf-8", errors, None, is_line_buffered, unbuffered)


def run(words: list[str], folders: list[str]) -> None:
    """Runs `-c CODE`, `-m MODULE` or a script as the main module, where modules are found in these folders too."""
    first, *rest = words
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    if first == "-m":
        sys.argv, sys.path[:] = rest, [os.getcwd(), *folders]
        sys.modules.pop(rest[0], None)  # nothing of it has run
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
        return
    if first == "-c":
        sys.argv, sys.path[:] = ["-c", *rest[1:]], ["", *folders]
        code = compile(rest[0], "<string>", "exec")
    else:
        sys.argv, sys.path[:] = [first, *rest], [str(Path(first).resolve().parent), *folders]
        main.__file__ = os.path.abspath(first)
        code = compile(Path(first).read_bytes(), main.__file__, "exec")
    exec(code, main.__dict__)  # noqa: S102


def be(command: Command, python: str, installed: list[str]) -> NoReturn:
    """Runs a command in this fork and ends it, without the second that taking everything down would cost."""
    take_over(command)
    sys.executable = python
    multiprocessing.set_executable(python)
    status = 0
    try:
        run(command.words, [*filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)), *installed])
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            sys.stderr.write(f"{end.code}\n")
    except BaseException as error:
        status = -signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1
        inside = error.__traceback__
        while inside is not None and inside.tb_frame.f_globals is globals():
            inside = inside.tb_next
        sys.excepthook(type(error), error.with_traceback(inside), inside)
    threading._shutdown()  # type: ignore[attr-defined] # as processes of multiprocessing end
    atexit._run_exitfuncs()
    for file in (sys.stdout, sys.stderr):
        if file is not None and not file.closed:
            file.flush()
    if status < 0:
        signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    os._exit(status)


if __name__ == "__main__":
    socket_path, python = sys.argv[1:]
    preload()
    own = [str(Path(__file__).parent), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    installed = [folder for folder in sys.path if folder not in own]
    server = Server(socket_path)
    sys.stdout.write("listening\n")
    sys.stdout.flush()
    command = server.serve()
    server.close()
    be(command, python, installed)
