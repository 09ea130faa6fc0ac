from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from seqba.training.signals import StopSignal


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_first_signal_only_sets_a_flag(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with StopSignal() as stop:
        assert not stop.is_set()
        os.kill(os.getpid(), number)
        assert stop.is_set()
        assert stop.received == number
    assert signal.getsignal(number) == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
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


@pytest.mark.parametrize(("echo_s", "status"), [(60.0, 0), (0.0, -signal.SIGTERM)])
def test_under_torchrun_a_signal_that_comes_twice_is_one(echo_s: float, status: int) -> None:
    code = f"""
import os
import seqba.training.signals as signals
signals.ECHO_S = {echo_s}
with signals.StopSignal() as stop:
    for _ in range(3):
        os.kill(os.getpid(), {int(signal.SIGTERM)})
    assert stop.received == {int(signal.SIGTERM)}
"""
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "TORCHELASTIC_RUN_ID": "1"}, capture_output=True, check=False
    )
    assert done.returncode == status


def test_an_ignored_signal_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup has it
    try:
        with StopSignal() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop.is_set()
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
