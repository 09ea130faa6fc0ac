"""What becomes of a tensor under a mask that was drawn before."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from seqba.noise.noise import Noise, draws_by_counter, drop_level, numbers_per_copy
from seqba.random.philox import LEVELS, NARROW

BLOCK_NUMBERS = 1 << 17
"""Numbers that a CPU drops at a time: what it makes of them on the way, 0.5 MB in float32, stays in its cache."""


def kept_scale(p: float) -> float:
    """What kept elements are multiplied by: 1 / (1 − p), for p as it is drawn."""
    return LEVELS / (LEVELS - drop_level(p))


def keyed_drop(
    noise: Noise,
    owner: object,
    x: Tensor,
    p: float,
    added: Tensor | None = None,
    rows: Sequence[int] | None = None,
) -> Tensor:
    """Drops from x by a mask of its shape that is drawn here: x·mask / (1 − p) + added, for p as it is drawn.

    A GPU does it in one kernel, which keeps no mask and draws it again in the backward.

    Args:
        noise: of the pass.
        owner: the object that draws, usually a module.
        x: (k·R, ...), floating.
        p: probability of dropping, in [0, 1).
        added: like x; None for nothing.
        rows: how many rows each copy has, where they don't all have R (`Noise.part_rows`).

    Raises:
        ValueError: as `Noise.keep_mask`.
    """
    if draws_by_counter(x.device) and rows is None and _suits_the_kernel(x, added):
        numbers_per_copy(x.shape, len(noise.copies))
        return noise.draw(owner).drop(x, added, drop_level(p))
    kept = noise.keep_mask(owner, x.shape, p, x.device, rows=rows)
    if added is None or added.shape != x.shape:
        dropped = drop(x, kept, p)
        return dropped if added is None else added + dropped
    result: Tensor = _DropAndAdd.apply(x, kept, kept_scale(p), added)  # type: ignore[no-untyped-call]
    return result


def _suits_the_kernel(x: Tensor, added: Tensor | None) -> bool:
    if x.dtype not in NARROW or not x.is_contiguous():
        return False
    return added is None or (added.dtype in NARROW and added.shape == x.shape and added.is_contiguous())


def drop(x: Tensor, kept: Tensor, p: float) -> Tensor:
    """Drops from x by a mask drawn before: x·kept / (1 − p), for p as it was drawn; backward keeps the mask alone.

    Args:
        x: any shape, floating.
        kept: int8, broadcastable to x: 1 where kept, 0 where dropped. One byte an element, where `F.dropout` keeps
            four on a CPU.
        p: the probability that `kept` was drawn with.

    Returns:
        A tensor like x.
    """
    result: Tensor = _Drop.apply(x, kept, kept_scale(p), x.dtype)  # type: ignore[no-untyped-call]
    return result


class _Drop(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, kept: Tensor, scale: float, dtype: torch.dtype) -> Tensor:
        ctx.save_for_backward(kept)
        ctx.scale, ctx.dtype = scale, x.dtype
        result = torch.empty_like(x, dtype=dtype)
        for part, x_part, kept_part in _blocks(result, x, kept):
            torch.mul(x_part, kept_part.to(_wide(x)).mul_(scale), out=part)
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
        for part, x_part, kept_part, added_part in _blocks(result, x, kept, added):
            torch.addcmul(added_part.to(dtype), x_part.to(dtype), kept_part.to(dtype), value=scale, out=part)
        return result

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, Tensor]:
        (kept,) = ctx.saved_tensors
        of_x, of_added = ctx.dtypes
        by_x: Tensor = _Drop.apply(grads[0], kept, ctx.scale, of_x)  # type: ignore[no-untyped-call]
        return by_x, None, None, grads[0].to(of_added)


def _wide(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


def _blocks(*tensors: Tensor) -> Iterable[tuple[Tensor, ...]]:
    """The tensors as they are; on a CPU, where all have one shape, in blocks of rows that stay near the core."""
    first = tensors[0]
    if first.device.type != "cpu" or any(tensor.shape != first.shape for tensor in tensors) or not first.dim():
        return [tensors]
    rows = max(1, BLOCK_NUMBERS * first.shape[0] // max(1, first.numel()))
    return zip(*(torch.split(tensor, rows) for tensor in tensors), strict=True)
