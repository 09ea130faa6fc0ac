"""Backwards without a derivative of their own, at less of the host's time."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch

Backward = Callable[..., Any]


def once_differentiable(backward: Backward) -> Backward:
    """Torch's decorator of the same name, which is called only where a gradient is differentiated itself.

    It costs several microseconds a call, a tenth of a small layer's backward; gradients are computed without a graph
    otherwise, and there is nothing for it to do.
    """
    guarded: Backward = torch.autograd.function.once_differentiable(backward)

    @functools.wraps(backward)
    def chosen(ctx: Any, *grads: Any) -> Any:
        return guarded(ctx, *grads) if torch.is_grad_enabled() else backward(ctx, *grads)

    return chosen
