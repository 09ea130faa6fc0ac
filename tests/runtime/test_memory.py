from __future__ import annotations

import platform
import subprocess
import sys

import pytest
import torch

from seqba.runtime.memory import keep_freed_memory, peak_memory_mb


def test_peak_memory_grows_with_what_is_held() -> None:
    before = peak_memory_mb(torch.device("cpu"))
    held = torch.ones(int((before + 50) * 1e6) // 4)
    assert peak_memory_mb(torch.device("cpu")) >= before + 40
    assert held[0] == 1


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator alone")
@pytest.mark.parametrize(("word", "expected"), [("keep", "7.0"), ("plain", "0.0")])
def test_freed_memory_comes_back_as_it_was_left(word: str, expected: str) -> None:
    # In a process of its own, since the setting stays. A block of 80 MB is beyond what glibc keeps by itself.
    code = """
import sys, torch
from seqba.runtime.memory import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
for _ in range(10):
    torch.full((20_000_000,), 7.0)
print(torch.empty(20_000_000)[10_000_000].item())
"""
    done = subprocess.run([sys.executable, "-c", code, word], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == expected


def test_other_c_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert not keep_freed_memory()
