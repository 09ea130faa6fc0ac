"""What stands around every command: mistakes, broken streams, exhausted memory."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from seqba.cli.command import run
from seqba.errors import UserError


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (UserError("what,\nwhere"), 2, "error: what, where\n"),
        (OSError(errno.ENOSPC, "no space", "x.pt"), 2, "error: the disk is full (x.pt): free some space"),
        (PermissionError(errno.EACCES, "Permission denied", "x.pt"), 2, "error: Permission denied (x.pt)\n"),
        (FileNotFoundError(errno.ENOENT, "No such file", "x.pt"), 2, "error: No such file (x.pt)\n"),
        (
            FileNotFoundError(errno.ENOENT, "No such file", "/gone/x.pt"),
            2,
            "error: the folder of /gone/x.pt is gone: was",
        ),
        (MemoryError(), 2, "error: out of memory: take smaller batches"),
        (torch.OutOfMemoryError("CUDA out of memory.\nTried"), 2, "error: out of memory (CUDA out of memory.)"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_what_a_user_can_mend_is_one_line(
    error: BaseException, status: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def main(arguments: Sequence[str] | None) -> int:
        raise error

    assert run(main) == status
    told = capsys.readouterr().err
    assert told.startswith(line)
    assert told.count("\n") == 1


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-"])
def test_a_closed_stream_is_no_traceback(closed: str) -> None:
    code = (
        "import sys; from seqba.cli.command import run\n"
        "def main(arguments):\n"
        "    sys.stdin.read(); print('×'); print('×', file=sys.stderr); return 0\n"
        "sys.exit(run(main))"
    )
    command = f'"{sys.executable}" -c "$CODE" {closed}'
    environment = {**os.environ, "CODE": code, "PYTHONIOENCODING": "ascii", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(["bash", "-c", command], env=environment, stdin=subprocess.DEVNULL, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.decode() == ("" if closed == ">&-" else "×\n")


def test_a_stream_that_the_program_has_closed_is_no_traceback() -> None:
    code = (
        "import sys; from seqba.cli.command import run\n"
        "def main(arguments):\n"
        "    print('lost'); return 0\n"
        "sys.stdout.close()\n"
        "sys.exit(run(main))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("call", ["seqba.cli.score", "seqba.cli.train"])
def test_help_whose_reader_went_away_is_no_traceback(call: str) -> None:
    code = f"from {call} import entry; entry()"
    command = f'"{sys.executable}" -c "{code}" --help | false; exit "${{PIPESTATUS[0]}}"'
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run(["bash", "-c", command], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (141, "")


def test_a_full_disk_under_both_streams_is_no_traceback() -> None:
    code = "import sys; from seqba.cli.command import run; sys.exit(run(lambda arguments: print('x' * 9999)))"
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-c", code], stdout=full, stderr=full)
    assert done.returncode == 2


@pytest.mark.parametrize("unbuffered", ["", "1"])  # the text is written at the end, or at once
@pytest.mark.parametrize("call", ["seqba.cli.score", "seqba.cli.train"])
def test_help_onto_a_full_disk_is_one_line(call: str, unbuffered: str) -> None:
    code = f"from {call} import entry; entry()"
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", code, "--help"], env=environment, stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 2
    assert done.stderr == "error: the disk is full: free some space and run the same command again\n"


@pytest.mark.parametrize("locale", [{"LC_ALL": "C"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}])
def test_a_name_goes_out_as_it_came_in(locale: dict[str, str]) -> None:
    code = (
        "import sys; from seqba.cli.command import run; from seqba.errors import UserError\n"
        "def main(arguments):\n"
        "    print(sys.argv[1], chr(0xD7), chr(0xD800)); raise UserError(sys.argv[1])\n"
        "sys.exit(run(main))"
    )
    name = b"gr\xc3\xbc\xc3\x9fe  caf\xe9"
    environment = {**os.environ, **locale, "PYTHONIOENCODING": "ascii", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code, name], env=environment, capture_output=True)
    assert done.stderr == b"error: " + name + b"\n"
    assert done.stdout == name + " × \\ud800\n".encode()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_nothing_half_written(tmp_path: Path, number: signal.Signals) -> None:
    code = (
        "import sys, time; from pathlib import Path; from seqba.cli.command import run\n"
        "from seqba.data.files import atomic_write\n"
        "def main(arguments):\n"
        "    with atomic_write(sys.argv[1]):\n"
        "        print('writing', flush=True); time.sleep(60)\n"
        "sys.exit(run(main))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "x.bin")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"writing\n"
        process.send_signal(number)
        assert process.wait(30) == 128 + number
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("installed", [False, True])
@pytest.mark.parametrize("moment", ["as the first is told", "as the process ends"])
def test_a_second_ctrl_c_ends_at_once_and_without_a_traceback(moment: str, installed: bool) -> None:
    """The first is handled, and the second comes as that is told, or once the status is decided."""
    code = (
        "import os, signal, sys; from seqba.cli import command, start\n"
        f"if {installed}: signal.signal(signal.SIGINT, start.interrupt)\n"
        "def again(*_, **__): os.kill(os.getpid(), signal.SIGINT)\n"
        "def main(arguments): raise KeyboardInterrupt\n"
    )
    if moment == "as the first is told":
        code += "command.print = again\n"
    else:
        code += "import atexit; atexit.register(again)\n"
    code += "command.run_process(main)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGINT
    assert done.stderr in ("", "interrupted\n")


def test_ctrl_c_is_python_again_after_a_command_in_this_process() -> None:
    def main(arguments: Sequence[str] | None) -> int:
        raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGINT)
    assert run(main) == 130
    assert signal.getsignal(signal.SIGINT) == before


def test_ctrl_c_in_an_import_in_the_middle_of_the_work_tidies_away(tmp_path: Path) -> None:
    (tmp_path / "late.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGINT)\n", encoding="utf-8")
    code = (
        "import signal, sys; from seqba.cli import start; from seqba.cli.command import run_process\n"
        "sys.path.insert(0, sys.argv[1]); signal.signal(signal.SIGINT, start.interrupt)\n"
        "def main(arguments):\n"
        "    try:\n"
        "        import late\n"
        "    finally:\n"
        "        print('tidied')\n"
        "run_process(main)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "tidied\n", "interrupted\n")


@pytest.mark.skipif(sys.platform != "linux", reason="the structure that sigaltstack fills is Linux's")
def test_signals_are_handled_on_a_stack_of_their_own() -> None:
    code = (
        "import ctypes, sys; from seqba.cli.command import run\n"
        "class Stack(ctypes.Structure):\n"
        "    _fields_ = [('address', ctypes.c_void_p), ('flags', ctypes.c_int), ('size', ctypes.c_size_t)]\n"
        "def main(arguments):\n"
        "    stack = Stack()\n"
        "    assert ctypes.CDLL(None).sigaltstack(None, ctypes.byref(stack)) == 0\n"
        "    print(stack.flags, stack.size > 2048)\n"
        "    return 0\n"
        "sys.exit(run(main, []))"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONFAULTHANDLER"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("0 True\n", "")
