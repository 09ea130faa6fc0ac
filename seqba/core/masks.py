"""What becomes of a tensor under a mask that was drawn before."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from seqba.core.noise import LEVELS, drop_level


def kept_scale(p: float) -> float:
    """What kept elements are multiplied by: 1 / (1 − p), for p as it is drawn."""
    return LEVELS / (LEVELS - drop_level(p))


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
