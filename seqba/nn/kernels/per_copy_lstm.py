"""An LSTM layer over stacked copies, each with its own mask on the recurrent weights: all copies at once, on a GPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from seqba.nn.kernels.lstm_cell import State, backward_factors, dropped_weight
from seqba.nn.kernels.products import product, product_dtype


def per_copy_lstm(
    x: Tensor, state: State, weight_ih: Tensor, weight_hh: Tensor, bias: Tensor, kept: Tensor, scale: float
) -> tuple[Tensor, State]:
    """An LSTM layer over k stacked copies, each with its own mask on W_hh.

    One product each for the input projection, its weight's gradient and the gradient by x; the recurrent products are
    batched over the copies, T small ones forward and back, and one large one for the gradient by W_hh.

    Args:
        x: (k·B, T, I), copy-major.
        state: (h, c), each (k·B, H).
        weight_ih: (4H, I).
        weight_hh: (4H, H).
        bias: (4H,), the sum of both biases.
        kept: (k, 4H, H) int8, 1 where an element of W_hh is kept.
        scale: what kept elements are multiplied by, 1 / (1 − p).

    Returns:
        The hidden states (k·B, T, H) and the last (h, c), each (k·B, H), float32 or wider. Products run in autocast's
        dtype under autocast.
    """
    copies = kept.shape[0]
    dtype = product_dtype(x)
    wide = torch.promote_types(x.dtype, torch.float32)
    x, state = x.to(wide), (state[0].to(wide), state[1].to(wide))
    # Time-major within a copy: a step is a contiguous block of rows.
    steps = x.view(copies, -1, *x.shape[1:]).transpose(1, 2)  # (k, T, B, I)
    h0, c0 = (part.view(copies, -1, part.shape[1]) for part in state)
    y, c = _PerCopyLSTM.apply(  # type: ignore[no-untyped-call]
        steps, h0, c0, weight_ih, weight_hh, bias, kept, scale, dtype
    )
    return y.transpose(1, 2).flatten(0, 1), (y[:, -1].flatten(0, 1), c.flatten(0, 1))


class _PerCopyLSTM(torch.autograd.Function):
    """(k, T, B, I) → (k, T, B, H) and the last c (k, B, H)."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        h0: Tensor,
        c0: Tensor,
        weight_ih: Tensor,
        weight_hh: Tensor,
        bias: Tensor,
        kept: Tensor,
        scale: float,
        dtype: torch.dtype,
    ) -> tuple[Tensor, Tensor]:
        copies, length, rows, _ = x.shape
        hidden_size = weight_hh.shape[1]
        x = x.contiguous()
        gates = _rows_product(x, weight_ih, bias, dtype)  # (k, T, B, 4H)
        h, c = (part.new_empty(copies, length + 1, rows, hidden_size) for part in (h0, c0))
        h[:, 0], c[:, 0] = h0, c0
        _run(gates, h, c, dropped_weight(weight_hh, kept, scale).to(dtype))
        ctx.save_for_backward(x, weight_ih, weight_hh, kept, gates, h, c)
        ctx.scale, ctx.dtype = scale, dtype
        return h[:, 1:].clone(), c[:, -1].clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad_y, grad_last_c = grads
        x, weight_ih, weight_hh, kept, gates, h, c = ctx.saved_tensors
        recurrent = dropped_weight(weight_hh, kept, ctx.scale).to(ctx.dtype)
        by_gates, by_h0, by_c0 = _run_back(gates, c, grad_y, grad_last_c, recurrent)
        by_weight_hh = _masked_gradient(by_gates, h[:, :-1], kept, ctx.scale, ctx.dtype)
        flat, inputs = by_gates.flatten(0, 2).to(ctx.dtype), x.flatten(0, 2).to(ctx.dtype)
        by_x = product(flat, weight_ih.to(ctx.dtype).t()).view_as(x).to(x.dtype) if ctx.needs_input_grad[0] else None
        by_weight_ih = product(flat.t(), inputs.t()).to(weight_ih.dtype)
        by_bias = by_gates.flatten(0, 2).sum(0)
        return by_x, by_h0, by_c0, by_weight_ih, by_weight_hh, by_bias, None, None, None


def _run(gates: Tensor, h: Tensor, c: Tensor, recurrent: Tensor) -> None:
    """All time steps: turns `gates` (k, T, B, 4H) from x's share of the sums into activations, and fills h and c.

    h and c are (k, T + 1, B, H) with the initial state at step 0; recurrent is (k, 4H, H).
    """
    size = h.shape[-1]
    dtype = recurrent.dtype
    for t in range(gates.shape[1]):
        step = gates[:, t]
        sums = torch.baddbmm(step.to(dtype), h[:, t].to(dtype), recurrent.transpose(1, 2)).to(step.dtype)
        torch.sigmoid(sums[..., : 2 * size], out=step[..., : 2 * size])
        torch.tanh(sums[..., 2 * size : 3 * size], out=step[..., 2 * size : 3 * size])
        torch.sigmoid(sums[..., 3 * size :], out=step[..., 3 * size :])
        i, f, g, o = step.chunk(4, dim=-1)
        torch.mul(f, c[:, t], out=c[:, t + 1])
        c[:, t + 1].addcmul_(i, g)
        torch.tanh(c[:, t + 1], out=h[:, t + 1])
        h[:, t + 1].mul_(o)


def _run_back(
    gates: Tensor, c: Tensor, grad_y: Tensor, grad_last_c: Tensor, recurrent: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Back through time: what does not depend on later steps is computed for all steps at once.

    Returns:
        The gradients by the gates' sums (k, T, B, 4H), and by the initial h and c, (k, B, H) each.
    """
    by_gates, through = backward_factors(gates, c[:, :-1], torch.tanh(c[:, 1:]))
    f = gates.chunk(4, dim=-1)[1]
    size = c.shape[-1]
    dc, dh = grad_last_c.clone(), torch.zeros_like(grad_last_c)
    for t in range(gates.shape[1] - 1, -1, -1):
        dh += grad_y[:, t]
        dc.addcmul_(dh, through[:, t])
        step = by_gates[:, t]
        step[..., : 3 * size].view(*dc.shape[:-1], 3, size).mul_(dc.unsqueeze(-2))
        step[..., 3 * size :].mul_(dh)
        dc.mul_(f[:, t])
        dh = torch.bmm(step.to(recurrent.dtype), recurrent).to(step.dtype)
    return by_gates, dh, dc


def _rows_product(x: Tensor, weight: Tensor, bias: Tensor, dtype: torch.dtype) -> Tensor:
    """x·Wᵀ + b over the last dimension as one product, in x's dtype."""
    flat = x.flatten(0, 2).to(dtype)
    return product(flat, weight.to(dtype), bias.to(dtype)).view(*x.shape[:3], weight.shape[0]).to(x.dtype)


def _masked_gradient(by_gates: Tensor, h: Tensor, kept: Tensor, scale: float, dtype: torch.dtype) -> Tensor:
    """Σ over copies of (by_gatesᵀ·h)·mask·scale: the gradient by W_hh (4H, H)."""
    left, right = by_gates.flatten(1, 2).to(dtype), h.flatten(1, 2).to(dtype)  # (k, T·B, 4H), (k, T·B, H)
    full = torch.bmm(left.transpose(1, 2), right)  # each copy's gradient must pass through its own mask
    return full.to(by_gates.dtype).mul_(kept.to(by_gates.dtype).mul_(scale)).sum(0)
