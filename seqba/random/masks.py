"""Masks of 16-bit numbers: which elements are kept, and what becomes of a tensor under a mask."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

LEVELS = 1 << 16
"""Probabilities are resolved to 1/65,536: sixteen random bits per element are drawn, not the 64 of a double."""

BLOCK_NUMBERS = 1 << 17
"""Numbers that a CPU drops at a time: what it makes of them on the way, 0.5 MB in float32, stays in its cache."""


def drop_level(probability: float) -> int:
    """How many of the 65,536 levels are dropped at `probability`: round(65,536·p)."""
    return round(probability * LEVELS)


def kept_scale(p: float) -> float:
    """Factor of kept elements: 1 / (1 − p), for p as it is drawn."""
    return LEVELS / (LEVELS - drop_level(p))


def kept(numbers: Tensor, p: float) -> Tensor:
    """Which of some int16 numbers, uniform on [-32768, 32767], are kept: int8, 1 where kept and 0 where dropped."""
    # Written as bytes rather than bools: on a CPU, torch vectorises this comparison and the mask's use only so.
    result = torch.empty_like(numbers, dtype=torch.int8)
    torch.ge(numbers, drop_level(p) - LEVELS // 2, out=result)
    return result


def drop(x: Tensor, kept: Tensor, p: float, added: Tensor | None = None) -> Tensor:
    """Drops from x by a mask drawn before: x·kept / (1 − p) + added, for p as it was drawn; backward keeps the mask.

    Args:
        x: any shape, floating.
        kept: int8, broadcastable to x: 1 where kept, 0 where dropped. One byte an element, where `F.dropout` keeps
            four on a CPU.
        p: the probability that `kept` was drawn with.
        added: like x; None for nothing.

    Returns:
        A tensor like x.
    """
    scale = kept_scale(p)
    if torch.compiler.is_compiling() or is_transformed():
        return _traced_drop(x, kept, scale, added)
    if added is not None and added.shape == x.shape:
        result: Tensor = _DropAndAdd.apply(x, kept, scale, added)  # type: ignore[no-untyped-call]
        return result
    dropped: Tensor = _Drop.apply(x, kept, scale, x.dtype)  # type: ignore[no-untyped-call]
    return dropped if added is None else added + dropped


def drop_by_numbers(x: Tensor, numbers: Tensor, p: float, added: Tensor | None = None) -> Tensor:
    """`drop` by the mask of as many int16 numbers as x has elements, uniform on [-32768, 32767]."""
    return drop(x, kept(numbers, p).view(x.shape), p, added)


def is_transformed() -> bool:
    """Whether `torch.func` (`grad`, `jvp`, …) differentiates what runs: it takes no autograd function as those here."""
    return torch._C._functorch.peek_interpreter_stack() is not None


def _traced_drop(x: Tensor, kept: Tensor, scale: float, added: Tensor | None) -> Tensor:
    """`drop` in operations that compilers and `torch.func` differentiate.

    torch 2.11 loses a traced function's gradient.
    """
    wide = _wide(x)
    dropped = x.to(wide) * (kept.to(wide) * scale)
    if added is None:
        return dropped.to(x.dtype)
    return (added + dropped).to(torch.promote_types(x.dtype, added.dtype))


class _Drop(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, kept: Tensor, scale: float, dtype: torch.dtype) -> Tensor:
        ctx.save_for_backward(kept)
        ctx.scale, ctx.dtype = scale, x.dtype
        wide = _wide(x)
        result = torch.empty_like(x, dtype=dtype)
        if not _goes_in_blocks(result, x, kept):
            return torch.mul(x, kept.to(wide).mul_(scale), out=result)
        for factor, part, x_part, kept_part in _blocks(wide, result, x, kept):
            factor.copy_(kept_part).mul_(scale)
            if part.dtype == wide:
                torch.mul(x_part, factor, out=part)
            else:  # rounded once, by a copy: `out` would take a tensor of its own for it
                part.copy_(factor.mul_(x_part))
        return result

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        (kept,) = ctx.saved_tensors
        return _Drop.apply(grads[0], kept, ctx.scale, ctx.dtype), None, None, None  # type: ignore[no-untyped-call]


class _DropAndAdd(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, kept: Tensor, scale: float, added: Tensor) -> Tensor:
        ctx.save_for_backward(kept)
        ctx.scale, ctx.dtypes = scale, (x.dtype, added.dtype)
        dtype = torch.promote_types(x.dtype, added.dtype)
        result = torch.empty_like(x, dtype=dtype)
        if not _goes_in_blocks(result, x, kept, added):
            return torch.addcmul(added.to(dtype), x.to(dtype), kept.to(dtype), value=scale, out=result)
        for factor, part, x_part, kept_part, added_part in _blocks(dtype, result, x, kept, added):
            wide = x_part if x_part.dtype == dtype else part.copy_(x_part)
            torch.addcmul(added_part.to(dtype), wide, factor.copy_(kept_part), value=scale, out=part)
        return result

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, Tensor]:
        (kept,) = ctx.saved_tensors
        of_x, of_added = ctx.dtypes
        by_x: Tensor = _Drop.apply(grads[0], kept, ctx.scale, of_x)  # type: ignore[no-untyped-call]
        return by_x, None, None, grads[0].to(of_added)


def _wide(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


def _goes_in_blocks(*tensors: Tensor) -> bool:
    """Whether tensors are taken a block of rows at a time: on a CPU, where all have one shape.

    A compiler sees them whole, and makes loops of its own.
    """
    first = tensors[0]
    alike = all(tensor.shape == first.shape for tensor in tensors)
    return first.device.type == "cpu" and not torch.compiler.is_compiling() and alike and first.dim() > 0


def _blocks(dtype: torch.dtype, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Blocks of rows that stay near the core; before them a tensor of their shape in `dtype`, one memory for all."""
    first = tensors[0]
    rows = max(1, BLOCK_NUMBERS * first.shape[0] // max(1, first.numel()))
    space = first.new_empty((min(rows, first.shape[0]), *first.shape[1:]), dtype=dtype)
    for parts in zip(*(torch.split(tensor, rows) for tensor in tensors), strict=True):
        yield space[: len(parts[0])], *parts
