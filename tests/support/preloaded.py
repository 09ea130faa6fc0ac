"""An environment like the suite's own, whose commands find torch and seqba imported."""

from __future__ import annotations

import atexit
import functools
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

SUPPORT = Path(__file__).parent


class PreloadedEnvironment:
    """A folder whose bin/ has `python`, torchrun and seqba's commands; all of them are forked from one process.

    Each is a process with files, environment, signals and an exit status of its own, and begins at once, where
    a new one takes seconds to import torch. Its parent, its process group and its priority are those of the process
    that forks, as are the hashes of strings, by which sets are ordered.

    Attributes:
        folder: what recipes take as SEQBA_VENV.
        python: what takes the place of sys.executable.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.python = str(folder / "bin" / "python")
        address = folder / "socket"
        client = [sys.executable, "-IS", SUPPORT / "preloaded_client.py", sys.executable, address]
        (folder / "bin").mkdir(parents=True)
        _write_script(folder / "bin" / "python", f'#!/bin/sh\nexec {shlex.join(map(str, client))} "$@"\n')
        for script in [*Path(sys.prefix, "bin").glob("seqba-*"), Path(sys.prefix, "bin", "torchrun")]:
            _, _, code = script.read_text(encoding="utf-8").partition("\n")
            _write_script(folder / "bin" / script.name, f"#!{self.python}\n{code}")
        self._server = subprocess.Popen(
            [sys.executable, SUPPORT / "preloaded_server.py", address, self.python],
            env={"OMP_NUM_THREADS": "1", **os.environ},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._server.stdout is not None
        if self._server.stdout.readline() != b"listening\n":
            raise RuntimeError("the process that forks has ended: its traceback is above")

    def close(self) -> None:
        """Ends the process that forks."""
        self._server.communicate()


@functools.cache
def preloaded() -> PreloadedEnvironment:
    """The one environment of this process, made by the first test that asks for it."""
    folder = Path(tempfile.mkdtemp(prefix="seqba-preloaded-"))
    environment = PreloadedEnvironment(folder)
    atexit.register(_end, environment, folder, os.getpid())
    return environment


def _end(environment: PreloadedEnvironment, folder: Path, process: int) -> None:
    """Ends what a process has made, in it alone: with Python 3.13 those that multiprocessing forks come here too."""
    if os.getpid() == process:
        environment.close()
        shutil.rmtree(folder)


def _write_script(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)
