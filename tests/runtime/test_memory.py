from __future__ import annotations

import platform
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from seqba.runtime.memory import _counts_promises, keep_freed_memory, peak_memory_mb


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


HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator alone")
@pytest.mark.skipif(_counts_promises(), reason="the kernel promises no more memory than it has")
@pytest.mark.skipif(not HUGE_PAGES.exists() or "[never]" in HUGE_PAGES.read_text(), reason="no huge pages here")
@pytest.mark.parametrize(("limit", "expected"), [(resource.RLIM_INFINITY, True), (1 << 40, False)])
def test_kept_memory_lies_in_huge_pages_where_addresses_are_not_counted(limit: int, expected: bool) -> None:
    # Blocks below the 2 MB from which torch asks by itself; "hg" is the kernel's word for what was asked for.
    code = """
import re, resource, sys
from pathlib import Path
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]), resource.RLIM_INFINITY))
from seqba.runtime.memory import keep_freed_memory
assert keep_freed_memory()
import torch
held = [torch.ones(200_000) for _ in range(50)]
for area in re.split(r"(?m)^(?=[0-9a-f]+-[0-9a-f]+ )", Path("/proc/self/smaps").read_text())[1:]:
    begin, end = (int(bound, 16) for bound in area.split(maxsplit=1)[0].split("-"))
    if begin <= held[-1].data_ptr() < end:
        print(" hg" in area.split("VmFlags:")[1])
"""
    done = subprocess.run([sys.executable, "-c", code, str(limit)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(expected)


def test_other_c_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert not keep_freed_memory()
