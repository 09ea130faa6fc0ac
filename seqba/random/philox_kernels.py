"""Triton's kernels of `seqba.random.philox`: one launch for a draw of all copies of a pass.

Of the core and the rooms below it, the only module that needs more than torch. It is imported where a tensor on a GPU
is drawn for the first time, and never on a CPU. The environment's TRITON_INTERPRET=1 runs the kernels in Python.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 1024
"""Numbers of a program: eight of a thread, which one call of the generator makes as 16 bits each."""


@triton.jit
def _philox(block, copy, k0, k1):
    """Philox-4x32-10 of the counters (block, 0, copy, 0): four uint32, each of the shape of `block`."""
    c0 = block.to(tl.uint32)
    zero = tl.zeros_like(c0)
    c1, c2, c3 = zero, zero + copy.to(tl.uint32), zero
    k0, k1 = zero + k0.to(tl.uint32), zero + k1.to(tl.uint32)
    for _ in tl.static_range(10):
        low0, high0 = c0 * 0xD2511F53, tl.umulhi(c0, tl.full(c0.shape, 0xD2511F53, tl.uint32))
        low2, high2 = c2 * 0xCD9E8D57, tl.umulhi(c2, tl.full(c2.shape, 0xCD9E8D57, tl.uint32))
        c0, c1, c2, c3 = high2 ^ c1 ^ k0, low2, high0 ^ c3 ^ k1, low0
        k0, k1 = k0 + 0x9E3779B9, k1 + 0xBB67AE85
    return c0, c1, c2, c3


@triton.jit
def _words(count: tl.constexpr, copy, k0, k1):
    """The `count` 32-bit numbers of this program, in their order."""
    block = tl.program_id(0) * (count // 4) + tl.arange(0, count // 4)
    a, b, c, d = _philox(block, copy, k0, k1)
    return tl.reshape(tl.join(tl.join(a, c), tl.join(b, d)), (count,))


@triton.jit
def _kept(count: tl.constexpr, copy, k0, k1, level):
    """Which of the `count` elements of this program are kept: 16 bits each, the lower half of a word first."""
    words = _words(count // 2, copy, k0, k1)
    return tl.reshape(tl.join(words & 0xFFFF, words >> 16), (count,)).to(tl.int32) >= level


@triton.jit(do_not_specialize=["k0", "k1", "first", "level"])
def _mask_kernel(out, per_copy, k0, k1, first, level, count: tl.constexpr):
    copy = tl.program_id(1)
    at = tl.program_id(0).to(tl.int64) * count + tl.arange(0, count)
    kept = _kept(count, first + copy, k0, k1, level)
    tl.store(out + copy.to(tl.int64) * per_copy + at, kept.to(tl.int8), mask=at < per_copy)


@triton.jit(do_not_specialize=["k0", "k1", "first"])
def _uniform_kernel(out, per_copy, k0, k1, first, count: tl.constexpr):
    copy = tl.program_id(1)
    at = tl.program_id(0).to(tl.int64) * count + tl.arange(0, count)
    numbers = (_words(count, first + copy, k0, k1) >> 8).to(tl.float32) * (1.0 / (1 << 24))
    tl.store(out + copy.to(tl.int64) * per_copy + at, numbers, mask=at < per_copy)


@triton.jit(do_not_specialize=["k0", "k1", "first", "level", "scale"])
def _drop_kernel(out, x, added, per_copy, k0, k1, first, level, scale, has_added: tl.constexpr, count: tl.constexpr):
    copy = tl.program_id(1)
    at = tl.program_id(0).to(tl.int64) * count + tl.arange(0, count)
    inside, place = at < per_copy, copy.to(tl.int64) * per_copy + at
    values = tl.load(x + place, mask=inside, other=0.0).to(tl.float32) * scale
    result = tl.where(_kept(count, first + copy, k0, k1, level), values, 0.0)
    if has_added:
        result += tl.load(added + place, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + place, result.to(out.dtype.element_ty), mask=inside)


def mask(kept: Tensor, copies: int, first: int, key: int, level: int) -> None:
    """Fills `kept` (copies·R, ...) int8: 0 for `level` of 65,536 numbers, 1 for the others."""
    _launch(kept, copies, lambda grid, size: _mask_kernel[grid](kept, size, *_halves(key), first, level, BLOCK))


def uniform(numbers: Tensor, copies: int, first: int, key: int) -> None:
    """Fills `numbers` (copies·R, ...) float32, uniform on [0, 1)."""
    _launch(numbers, copies, lambda grid, size: _uniform_kernel[grid](numbers, size, *_halves(key), first, BLOCK))


def drop(out: Tensor, x: Tensor, added: Tensor | None, copies: int, first: int, key: int, level: int) -> None:
    """Writes x·mask·65,536 / (65,536 − level) + added to `out`; all contiguous, (copies·R, ...)."""
    scale, other = 65536 / (65536 - level), x if added is None else added

    def launch(grid: Any, size: int) -> None:
        _drop_kernel[grid](out, x, other, size, *_halves(key), first, level, scale, added is not None, BLOCK)

    _launch(out, copies, launch)


def _launch(out: Tensor, copies: int, launch: Callable[[tuple[int, int], int], object]) -> None:
    """Launches a kernel on the device of `out`, for its elements of each copy."""
    per_copy = out.numel() // copies
    if per_copy:
        with _device_of(out):
            launch((-(-per_copy // BLOCK), copies), per_copy)  # triton.cdiv takes the host two microseconds


_HERE = nullcontext()


def _device_of(tensor: Tensor) -> AbstractContextManager[object]:
    """Triton launches on the current device, which may be another GPU."""
    if not tensor.is_cuda or tensor.get_device() == torch.cuda.current_device():
        return _HERE
    return torch.cuda.device(tensor.device)


def _halves(key: int) -> tuple[int, int]:
    """A 64-bit key as two signed 32-bit numbers, which Triton passes as they are."""
    low, high = key & 0xFFFFFFFF, (key >> 32) & 0xFFFFFFFF
    return low - ((low >> 31) << 32), high - ((high >> 31) << 32)
