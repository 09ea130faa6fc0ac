"""The preloaded environment of tests/support: what is forked there can't be told from a Python of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from multiprocessing import spawn
from pathlib import Path
from typing import Any

import pytest
from preloaded import preloaded
from rank_groups import start_ranks

CHILD = "import os, sys, time; print(os.getpid(), flush=True); time.sleep(60)"


def both(*arguments: str | Path, **options: Any) -> list[tuple[int, str, str]]:
    """What a Python and the preloaded one come to: exit status, stdout, stderr."""
    options = {"capture_output": True, "text": True, "check": False, **options}
    ended = (subprocess.run([python, *arguments], **options) for python in (sys.executable, preloaded().python))
    return [(process.returncode, process.stdout, process.stderr) for process in ended]


@pytest.mark.parametrize(
    "code",
    [
        "import sys; print(sys.argv, sys.path[0], sys.prefix, __name__)",
        "import sys; print(sys.stdin.read().upper()); sys.exit(3)",
        "import sys; sys.exit('a message')",
        "import os; os.kill(os.getpid(), 9)",
        "import atexit; atexit.register(print, 'the end'); print('no newline', end='')",
        "import threading; threading.Timer(0.1, print, ['later']).start()",
        "import os; os.environ['PWD'] = ''; print(sorted(os.environ.items()), os.getcwd())",
        "import os; print(sorted(os.listdir('/proc/self/fd')))",
        "import signal; print([signal.getsignal(number) for number in (1, 2, 13, 15)])",
    ],
)
def test_a_command_line_comes_to_the_same(tmp_path: Path, code: str) -> None:
    one, other = both("-c", code, "a", "-b", input="words", cwd=tmp_path)
    assert one == other


@pytest.mark.parametrize("end", ["1 / 0", "raise KeyboardInterrupt", "sys.exit()"])
def test_a_script_comes_to_the_same(tmp_path: Path, end: str) -> None:
    code = f"import sys, beside\nprint(sys.argv, __name__, __file__, sys.path[0])\ndef run():\n    {end}\nrun()\n"
    (tmp_path / "main.py").write_text(code, encoding="utf-8")
    (tmp_path / "beside.py").touch()
    for arguments in (["main.py", "a"], ["-u", "-B", tmp_path / "main.py"]):
        one, other = both(*arguments, cwd=tmp_path)
        assert one == other


def test_a_module_comes_to_the_same() -> None:
    one, other = both("-m", "json.tool", "--indent", "2", input="[1]")
    assert one == other


def test_what_an_interpreter_reads_at_its_start_is_left_to_one() -> None:
    code = "import sys, torch; print(sys.flags.optimize, sys.flags.hash_randomization, torch.get_num_threads())"
    settings = {**os.environ, "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "2"}
    one, other = both("-O", "-c", code), both("-c", code, env=settings)
    assert one[0] == one[1] == (0, one[0][1], "")
    assert other[0] == other[1]
    assert other[0][1] == "0 0 2\n"


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("TMPDIR", "here", "import tempfile; print(tempfile.gettempdir())"),
        ("TZ", "Asia/Tokyo", "import time; print(time.localtime(0).tm_hour)"),
        ("HF_HUB_OFFLINE", "1", "import huggingface_hub.constants as constants; print(constants.HF_HUB_OFFLINE)"),
    ],
)
def test_variables_that_modules_keep_are_those_of_the_command(tmp_path: Path, name: str, value: str, code: str) -> None:
    if name.startswith("HF_"):
        pytest.importorskip("huggingface_hub")
    (tmp_path / "here").mkdir()
    value = str(tmp_path / value) if value == "here" else value
    one, other = both("-c", code, env={**os.environ, name: value})
    assert one == other


@pytest.mark.parametrize("limit", ["umask 027", "ulimit -f 100", "ulimit -n 200"])
def test_limits_are_those_of_the_command(limit: str) -> None:
    code = "import os, resource as r; print(os.umask(0), r.getrlimit(r.RLIMIT_FSIZE), r.getrlimit(r.RLIMIT_NOFILE))"
    found = [
        subprocess.run(
            ["bash", "-c", f'{limit}; exec {python} -c "$0"', code], capture_output=True, text=True, check=True
        ).stdout
        for python in (sys.executable, preloaded().python)
    ]
    assert found[0] == found[1]


def test_no_two_processes_draw_the_same() -> None:
    code = "import random, numpy, torch; print(random.random(), numpy.random.rand(), torch.rand(()).item())"
    drawn = [
        subprocess.run([preloaded().python, "-c", code], capture_output=True, text=True, check=True).stdout.split()
        for _ in range(2)
    ]
    assert all(one != other for one, other in zip(*drawn, strict=True))


def test_files_beyond_the_standard_streams_are_there(tmp_path: Path) -> None:
    read = f"{preloaded().python} -c 'import sys; print(open(sys.argv[1]).read())' <(echo words)"
    assert subprocess.run(["bash", "-c", read], capture_output=True, check=True).stdout == b"words\n\n"
    closed = f"{preloaded().python} -c 'import sys; sys.stderr.write(str(sys.stdout))' >&-"
    assert subprocess.run(["bash", "-c", closed], capture_output=True, check=True).stderr == b"None"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_signals_end_the_process_itself(number: signal.Signals) -> None:
    process = subprocess.Popen([preloaded().python, "-c", CHILD], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    child = process.stdout.readline().decode().strip()
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == -number
    until = time.monotonic() + 60
    while Path("/proc", child).exists() and time.monotonic() < until:
        time.sleep(0.01)
    assert not Path("/proc", child).exists()


def test_an_ignored_signal_stays_ignored() -> None:
    command = f"trap '' TERM; exec {preloaded().python} -c 'import os; os.kill(os.getpid(), 15); print(1)'"
    assert subprocess.run(["bash", "-c", command], capture_output=True, check=True).stdout == b"1\n"


def test_commands_are_forked_too() -> None:
    command = [preloaded().folder / "bin" / "seqba-train", "--no-such-option"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: seqba-train: ")


def test_ranks_leave_the_interpreter_of_other_processes_as_it_was() -> None:
    before = spawn.get_executable()
    start_ranks(abs, 2)
    assert spawn.get_executable() == before
