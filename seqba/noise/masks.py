"""What becomes of a tensor under a mask that was drawn before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from seqba.noise.noise import Noise, draws_by_counter, drop_level, numbers_per_copy
from seqba.random.philox import LEVELS, NARROW


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
    dropped = drop(x, noise.keep_mask(owner, x.shape, p, x.device, rows=rows), p)
    return dropped if added is None else added + dropped


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
    result: Tensor = _Drop.apply(x, kept, kept_scale(p))  # type: ignore[no-untyped-call]
    return result


class _Drop(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, kept: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(kept)
        ctx.scale = scale
        return x * kept.to(x.dtype).mul_(scale)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (kept,) = ctx.saved_tensors
        return grads[0] * kept.to(grads[0].dtype).mul_(ctx.scale), None, None
