"""Draws on a GPU: Philox, a generator without state, so that one kernel draws for all copies of a pass.

A generator of torch's is seeded for each copy of each site, and each of them draws in a kernel of its own. Philox makes
its numbers from a key and a counter: the key is (seed, update, micro-batch, site), the counter the copy and the place
within it. So a copy's numbers are the same in any company, and a backward draws a mask again rather than keeping it.

The kernels are Triton's where it is installed (`seqba.random.philox_kernels`); elsewhere torch's operations make the
same bits, more slowly. A CPU draws from torch's generators, other numbers from the same key.

Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3".
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from seqba.random.masks import LEVELS

NARROW = (torch.float32, torch.float16, torch.bfloat16)
"""Dtypes that `Draw.drop` multiplies in float32."""

# A mask takes 16 bits for each element; one call of the generator makes eight of them, the lower half first.

_ROUNDS = 10
_MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
_WEYL = 0x9E3779B9, 0xBB67AE85
_LOW = 0xFFFFFFFF


@dataclass(frozen=True)
class Draw:
    """The numbers of one draw: those of some neighbouring copies at one site.

    Attributes:
        key: 64 bits, of (seed, update, micro-batch, site).
        first: number of the first copy, or what stands for all of them.
        copies: how many copies, k.
    """

    key: int
    first: int
    copies: int

    @classmethod
    def of(cls, key: int, copies: Sequence[int]) -> Draw:
        """The draw of the copies of a pass.

        Raises:
            ValueError: for copies that aren't neighbours.
        """
        neighbours = range(copies[0], copies[0] + len(copies))
        if copies != neighbours and list(copies) != list(neighbours):
            raise ValueError(f"the copies of a pass on a GPU must be neighbours, not {list(copies)}")
        return cls(key - (1 << 64) if key >= 1 << 63 else key, copies[0], len(copies))

    def of_copy(self, number: int) -> Draw:
        """The draw of one of the copies alone, from 0."""
        return Draw(self.key, self.first + number, 1)

    @staticmethod
    def can_drop(x: Tensor, added: Tensor | None) -> bool:
        """Whether `drop` takes these tensors."""
        if x.dtype not in NARROW or not x.is_contiguous():
            return False
        return added is None or (added.dtype in NARROW and added.shape == x.shape and added.is_contiguous())

    def keep_mask(self, shape: Sequence[int], level: int, device: torch.device) -> Tensor:
        """int8 of `shape` (k·R, ...), 0 for `level` of 65,536 numbers and 1 for the others."""
        kept = torch.empty(tuple(shape), dtype=torch.int8, device=device)
        _operators().philox_mask_(kept, self.copies, self.first, self.key, level)
        return kept

    def uniform(self, shape: Sequence[int], device: torch.device) -> Tensor:
        """float32 of `shape` (k·R, ...), uniform on [0, 1): multiples of 2^-24."""
        numbers = torch.empty(tuple(shape), dtype=torch.float32, device=device)
        _operators().philox_uniform_(numbers, self.copies, self.first, self.key)
        return numbers

    def drop(self, x: Tensor, added: Tensor | None, level: int) -> Tensor:
        """x·mask·65,536 / (65,536 − level) + added, in one kernel; the backward draws the mask of `keep_mask` again.

        Args:
            x: (k·R, ...), contiguous, of a dtype in `NARROW`.
            added: of the same shape and such a dtype, or None.
            level: see `keep_mask`.

        Returns:
            Like x, in the wider dtype of both.
        """
        result: Tensor = _Drop.apply(x, added, self, level)  # type: ignore[no-untyped-call]
        return result


class _Drop(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, added: Tensor | None, draw: Draw, level: int) -> Tensor:
        ctx.draw, ctx.level, ctx.dtype = draw, level, x.dtype
        dtype = x.dtype if added is None else torch.promote_types(x.dtype, added.dtype)
        ctx.added_dtype = None if added is None else added.dtype
        return _dropped(x, added, draw, level, dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        needs_x, needs_added = ctx.needs_input_grad[:2]
        by_x, grad = None, grads[0].contiguous()
        if needs_x and torch.is_grad_enabled():  # of a gradient that is differentiated itself
            by_x = _Drop.apply(grad, None, ctx.draw, ctx.level).to(ctx.dtype)  # type: ignore[no-untyped-call]
        elif needs_x:
            by_x = _dropped(grad, None, ctx.draw, ctx.level, ctx.dtype)
        return by_x, grads[0].to(ctx.added_dtype) if needs_added else None, None, None


def _dropped(x: Tensor, added: Tensor | None, draw: Draw, level: int, dtype: torch.dtype) -> Tensor:
    arguments = x, added, draw.copies, draw.first, draw.key, level, dtype
    result: Tensor = _drop_by_kernel(*arguments) if _needs_no_operator(x) else _operators().philox_drop(*arguments)
    return result


def _needs_no_operator(x: Tensor) -> bool:
    """Whether the kernel is launched at once: an operator's way through torch takes the host as long as the launch."""
    return type(x) is Tensor and x.is_cuda and not torch.compiler.is_compiling()


def words(key: int, first: int, copies: int, count: int, device: torch.device) -> Tensor:
    """The generator's 32-bit numbers (copies, count) int64: word w of a copy is number w mod 4 of counter w div 4.

    Philox-4x32-10 with the key's lower and upper half and the counter (block, 0, copy, 0).
    """
    blocks = -(-count // 4)
    c0 = torch.arange(blocks, device=device).expand(copies, blocks)
    c2 = (torch.arange(first, first + copies, device=device) & _LOW).unsqueeze(1).expand(copies, blocks)
    zeros = torch.zeros_like(c0)
    drawn = rounds([c0, zeros, c2, zeros], key & _LOW, (key >> 32) & _LOW)
    return torch.stack(drawn, dim=-1).flatten(1)[:, :count]


def rounds(counter: Sequence[Tensor], low: int, high: int) -> list[Tensor]:
    """The four 32-bit numbers of each counter, int64, under a key of two 32-bit halves."""
    c0, c1, c2, c3 = counter
    for _ in range(_ROUNDS):
        (high0, low0), (high2, low2) = _product(c0, _MULTIPLIERS[0]), _product(c2, _MULTIPLIERS[1])
        c0, c1, c2, c3 = high2 ^ c1 ^ low, low2, high0 ^ c3 ^ high, low0
        low, high = (low + _WEYL[0]) & _LOW, (high + _WEYL[1]) & _LOW
    return [c0, c1, c2, c3]


def _product(a: Tensor, b: int) -> tuple[Tensor, Tensor]:
    """Upper and lower 32 bits of a·b, for 32-bit numbers in int64, which would overflow at once."""
    low = (a & 0xFFFF) * b
    high = (a >> 16) * b + (low >> 16)
    return high >> 16, ((high & 0xFFFF) << 16) | (low & 0xFFFF)


def _mask_by_torch(kept: Tensor, copies: int, first: int, key: int, level: int) -> None:
    per_copy = kept.numel() // copies
    drawn = words(key, first, copies, -(-per_copy // 2), kept.device)
    halves = torch.stack([drawn & 0xFFFF, drawn >> 16], dim=-1).flatten(1)[:, :per_copy]
    kept.copy_((halves >= level).reshape(kept.shape))


def _uniform_by_torch(numbers: Tensor, copies: int, first: int, key: int) -> None:
    drawn = words(key, first, copies, numbers.numel() // copies, numbers.device) >> 8
    numbers.copy_(drawn.to(torch.float32).mul_(2**-24).view_as(numbers))


def _drop_by_torch(
    x: Tensor, added: Tensor | None, copies: int, first: int, key: int, level: int, dtype: torch.dtype
) -> Tensor:
    kept = torch.empty(x.shape, dtype=torch.int8, device=x.device)
    _mask_by_torch(kept, copies, first, key, level)
    dropped = torch.where(kept.bool(), x.float() * (LEVELS / (LEVELS - level)), 0.0)
    return (dropped if added is None else dropped + added.float()).to(dtype)


def _drop_by_kernel(
    x: Tensor, added: Tensor | None, copies: int, first: int, key: int, level: int, dtype: torch.dtype
) -> Tensor:
    kernels = _kernels()
    if kernels is None:
        return _drop_by_torch(x, added, copies, first, key, level, dtype)
    result = torch.empty_like(x, dtype=dtype)
    kernels.drop(result, x, added, copies, first, key, level)
    return result


def _mask_by_kernel(kept: Tensor, copies: int, first: int, key: int, level: int) -> None:
    kernels = _kernels()
    (_mask_by_torch if kernels is None else kernels.mask)(kept, copies, first, key, level)


def _uniform_by_kernel(numbers: Tensor, copies: int, first: int, key: int) -> None:
    kernels = _kernels()
    (_uniform_by_torch if kernels is None else kernels.uniform)(numbers, copies, first, key)


@cache
def _kernels() -> ModuleType | None:
    """The kernels, where Triton is installed: a second to import, and only where there is a GPU."""
    try:
        return importlib.import_module("seqba.random.philox_kernels")
    except ImportError:
        return None


_library: torch.library.Library | None = None


@cache
def _operators() -> Any:
    """The draws as operators of torch: known to fake tensors and to the compiler, and counted as one each."""
    global _library
    _library = torch.library.Library("seqba", "DEF")  # type: ignore[no-untyped-call]
    library: Any = _library
    library.define("philox_mask_(Tensor(a!) kept, int copies, int first, int key, int level) -> ()")
    library.define("philox_uniform_(Tensor(a!) numbers, int copies, int first, int key) -> ()")
    library.define(
        "philox_drop(Tensor x, Tensor? added, int copies, int first, int key, int level, ScalarType dtype) -> Tensor"
    )
    for name, by_torch, by_kernel, fake in (
        ("philox_mask_", _mask_by_torch, _mask_by_kernel, lambda *_: None),
        ("philox_uniform_", _uniform_by_torch, _uniform_by_kernel, lambda *_: None),
        ("philox_drop", _drop_by_torch, _drop_by_kernel, lambda x, *others: torch.empty_like(x, dtype=others[-1])),
    ):
        library.impl(name, by_torch, "CompositeExplicitAutograd")
        library.impl(name, by_kernel, "CUDA")
        library.impl(name, fake, "Meta")
    return torch.ops.seqba
