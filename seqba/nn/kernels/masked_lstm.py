"""An LSTM layer with masks on its recurrent weights: one mask for all rows, or one for each of k stacked copies."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from seqba.nn.kernels.backwards import once_differentiable
from seqba.nn.kernels.casts import casts_or_weights, narrow, shared_cast
from seqba.nn.kernels.fused_lstm import FusedLSTM, dropped, has_fused_cell
from seqba.nn.kernels.prepacked import can_prepack, can_prepack_narrow, prepacked_sum, prepacked_wide_sum
from seqba.nn.kernels.products import product, product_dtype, transposed

State = tuple[Tensor, Tensor]
"""(h, c), each (rows, H)."""

LARGE_WEIGHT = 3_000_000
"""Elements from which W_hh is read from far, 866 units: smaller ones stay near a core, and torch's LSTM is as fast."""
FEW_ROWS = 100
"""Rows up to which a time step waits for the weights; the products of more rows are bound by arithmetic anyway."""
LARGE_NARROW_WEIGHT = 500_000
"""The same in bfloat16 on a processor that multiplies it, 354 units: so fast there that torch's LSTM waits."""

MINUS_ONE = torch.tensor(-1.0)  # no dimensions: a number, of whatever dtype it meets


def suits_prepacking(x: Tensor, weight_hh: Tensor) -> bool:
    """Whether `masked_lstm` is faster than torch's LSTM on a CPU, with one mask for the rows x (B, T, I).

    Decided by types, sizes and the machine, never by timing, so that a resumed run computes as it did before.
    """
    if can_prepack_narrow(weight_hh) and product_dtype(x) == torch.bfloat16:
        return weight_hh.numel() >= LARGE_NARROW_WEIGHT
    return can_prepack(weight_hh) and x.shape[0] <= FEW_ROWS and weight_hh.numel() >= LARGE_WEIGHT


def masked_lstm(
    x: Tensor, state: State, weight_ih: Tensor, weight_hh: Tensor, bias: Tensor, kept: Tensor, scale: float
) -> tuple[Tensor, State]:
    """An LSTM layer over k stacked copies, each with its own mask on W_hh; k = 1 is one mask for all rows.

        i, f, o = σ(W x_t + U h_{t−1} + b);  g = tanh(…);  c_t = f·c_{t−1} + i·g;  h_t = o·tanh(c_t)
        U = W_hh·mask·scale

    The recurrent products have few rows, and are bound by how fast U comes from memory. One U on a CPU is prepacked for
    all time steps, forward and again back, and its products run as fast as large ones; those of several copies are
    batched; on a GPU with Triton a step is one such product and one kernel (`seqba.nn.kernels.fused_lstm`). Everything
    else is one product each: the input projection, the gradients by both weights and by x. A token leaves 6H + I
    numbers for the backward, U nothing but its mask; torch's LSTM leaves about twice that.

    Args:
        x: (k·B, T, I), copy-major.
        state: (h, c), each (k·B, H).
        weight_ih: (4H, I), gates in the order i, f, g, o.
        weight_hh: (4H, H).
        bias: (4H,), the sum of both biases.
        kept: (k, 4H, H) int8, 1 where an element of W_hh is kept.
        scale: what kept elements are multiplied by, 1 / (1 − p).

    Returns:
        The hidden states (k·B, T, H) and the last (h, c), each (k·B, H), float32 or wider. Products run in autocast's
        dtype under autocast.
    """
    dtype = product_dtype(x)
    wide = torch.promote_types(x.dtype, torch.float32)
    h, c = (part.to(wide) for part in state)
    if has_fused_cell(x.device):
        y, c = FusedLSTM.apply(  # type: ignore[no-untyped-call]
            x.to(wide), h, c, weight_ih, weight_hh, bias, kept, scale, dtype
        )
        return y, (y[:, -1].clone(), c)
    y, c = _MaskedLSTM.apply(  # type: ignore[no-untyped-call]
        x.to(wide).transpose(0, 1), h, c, weight_ih, weight_hh, bias, kept, scale, dtype
    )
    return y.transpose(0, 1), (y[-1].clone(), c)


class _MaskedLSTM(torch.autograd.Function):
    """(T, k·B, I) → (T, k·B, H) and the last c (k·B, H). Time comes first: a step is a contiguous block of rows."""

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
        length, rows, _ = x.shape
        x = x.contiguous()
        inputs = product(x.flatten(0, 1).to(dtype), narrow(weight_ih, dtype), bias.to(dtype))
        gates = inputs.to(x.dtype).view(length, rows, -1)
        h, c = (part.new_empty(length + 1, *part.shape) for part in (h0, c0))
        h[0], c[0] = h0, c0
        _run(gates, h, c, dropped(weight_hh, kept, scale, dtype), dtype)
        ctx.save_for_backward(x, weight_ih, weight_hh, kept, gates, h, c)
        ctx.scale, ctx.dtype = scale, dtype
        ctx.casts = shared_cast(weight_ih, dtype), shared_cast(weight_hh, dtype)
        return h[1:], c[-1].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad_y, grad_last_c = grads
        x, weight_ih, weight_hh, kept, gates, h, c = ctx.saved_tensors
        factors, through = _backward_factors(gates, c[:-1], _as_tanh((c[1:] * 2).sigmoid_()))
        cast_ih, cast_hh = casts_or_weights(ctx.casts, (weight_ih, weight_hh))
        recurrent = _swapped(dropped(cast_hh, kept, ctx.scale, ctx.dtype))
        by_h0, by_c0 = _run_back(factors, through, gates, grad_y, grad_last_c, recurrent, ctx.dtype)
        by_gates = factors.flatten(0, 1)
        by_gates_narrow = by_gates.to(ctx.dtype)
        by_x = product(by_gates_narrow, cast_ih.to(ctx.dtype).t()).to(x.dtype).view_as(x)
        columns = transposed(by_gates_narrow)  # once, for both
        by_weight_ih = product(columns, x.flatten(0, 1).to(ctx.dtype).t()).to(weight_ih.dtype)
        by_weight_hh = _masked_gradient(columns, h[:-1], kept, ctx.scale)
        return by_x, by_h0, by_c0, by_weight_ih, by_weight_hh, by_gates.sum(0), None, None, None


def _run(gates: Tensor, h: Tensor, c: Tensor, recurrent: Tensor, dtype: torch.dtype) -> None:
    """Runs all time steps: turns `gates` (T, R, 4H) from x's share of the sums into activations, and fills h and c.

    h and c are (T + 1, R, H) with the initial state at step 0. The sums for g are made twice as large, since
    tanh z = 2σ(2z) − 1: torch's own tanh takes five times as long as its σ on some processors. Doubles `recurrent`
    (k, 4H, H) in place, too.
    """
    size = h.shape[-1]
    gates[..., 2 * size : 3 * size].mul_(2)
    recurrent[:, 2 * size : 3 * size].mul_(2)
    summed, squashed = _recurrent_sum(recurrent, dtype), torch.empty_like(c[0])
    # Views are made before the loop: it has ten kernels of a few microseconds a step.
    gate_steps = (gate.unbind() for gate in gates.chunk(4, dim=-1))
    steps = zip(
        gates.unbind(), h[:-1].unbind(), h[1:].unbind(), c[:-1].unbind(), c[1:].unbind(), *gate_steps, strict=True
    )
    for step, last_h, next_h, last_c, next_c, i, f, g, o in steps:
        torch.sigmoid(summed(last_h, step), out=step)
        _as_tanh(g)
        torch.mul(f, last_c, out=next_c).addcmul_(i, g)
        _as_tanh(torch.add(next_c, next_c, out=squashed).sigmoid_())
        torch.mul(o, squashed, out=next_h)


def _run_back(
    factors: Tensor,
    through: Tensor,
    gates: Tensor,
    grad_y: Tensor,
    grad_last_c: Tensor,
    recurrent: Tensor,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """Runs back through time: turns `factors` into the gradients by the gates' sums, in place.

    grad_y is (T, R, H); `recurrent` (k, H, 4H) is Uᵀ. Returns the gradients by the initial h and c.
    """
    length, rows, size = through.shape
    summed, dc, dh = _recurrent_sum(recurrent, dtype), grad_last_c.clone(), grad_y[-1]
    dc_of_gates = dc.unsqueeze(1)  # (R, 1, H), follows dc
    earlier = (torch.zeros_like(dc), *grad_y[:-1].unbind())
    of_c = factors[..., : 3 * size].view(length, rows, 3, size).unbind()
    of_h = factors[..., 3 * size :].unbind()
    f = gates[..., size : 2 * size].unbind()
    steps = list(zip(factors.unbind(), of_c, of_h, through.unbind(), f, earlier, strict=True))
    for step, step_of_c, step_of_h, step_through, step_f, grad_h in reversed(steps):
        dc.addcmul_(dh, step_through)
        step_of_c.mul_(dc_of_gates)
        step_of_h.mul_(dh)
        dc.mul_(step_f)
        dh = summed(step, grad_h)
    return dh, dc


def _backward_factors(gates: Tensor, last_c: Tensor, squashed: Tensor) -> tuple[Tensor, Tensor]:
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


def _masked_gradient(columns: Tensor, h: Tensor, kept: Tensor, scale: float) -> Tensor:
    """Σ over copies of (by the gates' sums)ᵀ·h·mask·scale, the gradient by W_hh (4H, H).

    columns is (4H, T·k·B), h (T, k·B, H); each copy's gradient passes through its own mask.
    """
    copies, (length, rows, size) = len(kept), h.shape
    left = columns.view(-1, length, copies, rows // copies)
    right = h.view(length, copies, rows // copies, size)

    def of_copy(copy: int) -> Tensor:
        full = product(left[:, :, copy].flatten(1), right[:, copy].flatten(0, 1).to(columns.dtype).t())
        return full.to(h.dtype).mul_(kept[copy].to(h.dtype).mul_(scale))

    return functools.reduce(Tensor.add_, map(of_copy, range(copies)))


def _recurrent_sum(weight: Tensor, dtype: torch.dtype) -> Callable[[Tensor, Tensor], Tensor]:
    """The sum x (k·B, D), other (k·B, E) → x·Wᵀ + other for the weights (k, E, D) of k copies, products in `dtype`."""
    if len(weight) == 1 and dtype == torch.bfloat16 and can_prepack_narrow(weight):
        return prepacked_wide_sum(weight[0])
    if len(weight) == 1 and dtype.itemsize >= 4:  # the other side of the sum has that dtype too
        return prepacked_sum(weight[0])
    columns = weight.to(dtype).transpose(1, 2)

    copies, width, outputs = columns.shape

    def summed(x: Tensor, other: Tensor) -> Tensor:
        before, rows = other.to(dtype).reshape(copies, -1, outputs), x.to(dtype).view(copies, -1, width)
        return torch.baddbmm(before, rows, columns).flatten(0, 1).to(other.dtype)

    return summed


def _swapped(weight: Tensor) -> Tensor:
    """(k, E, D) → (k, D, E); contiguous where it is one float32 weight, which is going to be prepacked."""
    if len(weight) == 1 and weight.dtype != torch.bfloat16:
        return transposed(weight[0]).unsqueeze(0)
    return weight.transpose(1, 2)


def _as_tanh(sigmoid_of_double: Tensor) -> Tensor:
    """σ(2z) → tanh z = 2σ(2z) − 1, in place."""
    return torch.add(MINUS_ONE, sigmoid_of_double, alpha=2, out=sigmoid_of_double)
