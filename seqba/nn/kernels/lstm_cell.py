"""What both LSTM kernels compute alike: dropped weights, and the part of the backward that no later step enters."""

from __future__ import annotations

import torch
from torch import Tensor

State = tuple[Tensor, Tensor]
"""(h, c), each (rows, H)."""


def dropped_weight(weight: Tensor, kept: Tensor, scale: float) -> Tensor:
    """W·mask·scale, (…, 4H, H) for masks int8 (…, 4H, H), in W's dtype."""
    return kept.to(weight.dtype).mul_(scale).mul_(weight)


def backward_factors(gates: Tensor, last_c: Tensor, squashed: Tensor) -> tuple[Tensor, Tensor]:
    """The factors of a step's gradients, for all steps at once.

    With the gradients dh and dc of a step,

        by (i, f, g) = dc · (g·i(1−i), c_{t−1}·f(1−f), i·(1−g²)),   by o = dh · tanh(c_t)·o(1−o),
        dc_t = dc_{t+1}·f_{t+1} + dh · o(1−tanh²c_t)

    Args:
        gates: (…, 4H), the activations i, f, g, o.
        last_c: (…, H), c_{t−1}.
        squashed: (…, H), tanh(c_t).

    Returns:
        The factors of dc and dh (…, 4H), and o(1−tanh²c_t) (…, H).
    """
    factors = torch.empty_like(gates)
    i, f, g, o = gates.chunk(4, dim=-1)
    of_i, of_f, of_g, of_o = factors.chunk(4, dim=-1)
    torch.ops.aten.sigmoid_backward.grad_input(g, i, grad_input=of_i)
    torch.ops.aten.sigmoid_backward.grad_input(last_c, f, grad_input=of_f)
    torch.ops.aten.tanh_backward.grad_input(i, g, grad_input=of_g)
    torch.ops.aten.sigmoid_backward.grad_input(squashed, o, grad_input=of_o)
    return factors, torch.ops.aten.tanh_backward(o, squashed)
