from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from seqba.training.signals import StopSignal


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_first_signal_only_sets_a_flag(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with StopSignal() as stop:
        assert not stop.is_set()
        os.kill(os.getpid(), number)
        assert stop.is_set()
        assert stop.received == number
    assert signal.getsignal(number) == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_the_process_at_once(number: signal.Signals) -> None:
    code = f"""
import os
from seqba.training.signals import StopSignal
with StopSignal() as stop:
    os.kill(os.getpid(), {int(number)})
    print("still here", flush=True)
    os.kill(os.getpid(), {int(number)})
    print("too late", flush=True)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == -number
    assert done.stdout == "still here\n"
