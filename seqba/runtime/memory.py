"""Memory of the process: keeping what was freed for the next update, and reading the peak."""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import sys
from pathlib import Path

import torch

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
_MADV_HUGEPAGE = 14
_TOP_PAD_BYTES = 64 << 20
_NEVER = -1


def keep_freed_memory() -> bool:
    """Makes the C library keep freed memory for the next allocation, and asks for it in huge pages.

    Each update allocates and frees the same large activations. By default glibc maps every large block afresh, and the
    kernel then clears it page by page at first touch. Kept memory is cleared once. Huge pages (torch's own switch,
    where the kernel's setting is "madvise" or "always") spare the processor's address tables: on an AVX-512 machine
    they make float32 products a fifth faster, and their alignment leaves fewer gaps between blocks of unequal sizes.
    The price: memory does not shrink between updates. Call it once, before the model is built.

    Returns:
        Whether it took effect; False on anything but glibc, where nothing is changed.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # torch reads it at its first allocation of 2 MB or more
    try:
        libc = ctypes.CDLL(None)
        mallopt = libc.mallopt
    except (OSError, AttributeError):
        return False
    settings = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, _NEVER), (_M_TOP_PAD, _TOP_PAD_BYTES))
    results = [mallopt(name, value) for name, value in settings]
    if not all(result == 1 for result in results):
        return False
    _ask_for_huge_pages(libc)
    return True


def _ask_for_huge_pages(libc: ctypes.CDLL) -> None:
    """Has the heap grow into addresses for which huge pages were asked for, up to half of the machine's memory.

    The addresses are reserved and handed back to the C library's free list at once. No memory stands behind them until
    it is written to (VSZ tells of them, RSS doesn't). Nothing is reserved where addresses are counted: under a limit,
    or where the kernel promises no more than it has.
    """
    limits = [resource.getrlimit(which)[0] for which in (resource.RLIMIT_AS, resource.RLIMIT_DATA)]
    if any(limit != resource.RLIM_INFINITY for limit in limits) or _counts_promises():
        return
    libc.sbrk.restype = libc.malloc.restype = ctypes.c_void_p
    page = resource.getpagesize()
    begin = libc.sbrk(ctypes.c_ssize_t(0))
    reserved = libc.malloc(ctypes.c_size_t(os.sysconf("SC_PHYS_PAGES") * page // 2))
    begin, end = -(-begin // page) * page, libc.sbrk(ctypes.c_ssize_t(0)) // page * page
    if end > begin:
        libc.madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), _MADV_HUGEPAGE)
    libc.free(ctypes.c_void_p(reserved))


def _counts_promises() -> bool:
    policy = Path("/proc/sys/vm/overcommit_memory")
    return not policy.exists() or policy.read_text(encoding="ascii").strip() == "2"


def peak_memory_mb(device: torch.device) -> float:
    """Peak memory in MB (10^6 bytes): allocated by torch on a GPU, resident in this process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    return _peak_resident_bytes() / 1e6


def _peak_resident_bytes() -> int:
    status = Path("/proc/self/status")
    if status.exists():
        # getrusage's figure survives exec: a small program started by a large one would report its parent's peak.
        for line in status.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
