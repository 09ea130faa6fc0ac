"""An LSTM layer with one mask on its recurrent weights, on a CPU: few rows, many units, little memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from seqba.nn.kernels.lstm_cell import State, backward_factors, dropped_weight
from seqba.nn.kernels.prepacked import can_prepack, prepacked_sum
from seqba.nn.kernels.products import product, transposed

LARGE_WEIGHT = 3_000_000
"""Elements from which W_hh is read from far, 866 units: smaller ones stay near a core, and torch's LSTM is as fast."""
FEW_ROWS = 100
"""Rows up to which a time step waits for the weights; the products of more rows are bound by arithmetic anyway."""

MINUS_ONE = torch.tensor(-1.0)  # no dimensions: a number, of whatever dtype it meets


def suits_prepacking(x: Tensor, weight_hh: Tensor) -> bool:
    """Whether `masked_lstm` is the faster one for rows x (B, T, I): by types, sizes and the machine, never by timing.

    So a resumed run computes as it did before.
    """
    return can_prepack(weight_hh) and x.shape[0] <= FEW_ROWS and weight_hh.numel() >= LARGE_WEIGHT


def masked_lstm(
    x: Tensor, state: State, weight_ih: Tensor, weight_hh: Tensor, bias: Tensor, kept: Tensor, scale: float
) -> tuple[Tensor, State]:
    """An LSTM layer whose recurrent weights go into blocks once for all time steps, forward and again back.

    The products of a time step have few rows and are bound by how fast the weights come from memory; from blocks they
    run as fast as large ones. Everything else is one product each: the input projection, the gradients by both weights
    and by x. A token leaves 6H + I numbers for the backward, the dropped weights nothing but their mask; torch's LSTM
    leaves about twice that.

    Args:
        x: (B, T, I).
        state: (h, c), each (B, H).
        weight_ih: (4H, I), gates in the order i, f, g, o.
        weight_hh: (4H, H).
        bias: (4H,), the sum of both biases.
        kept: (4H, H) int8, 1 where an element of W_hh is kept.
        scale: what kept elements are multiplied by, 1 / (1 − p).

    Returns:
        The hidden states (B, T, H) and the last (h, c), each (B, H), in x's dtype.
    """
    y, c = _MaskedLSTM.apply(  # type: ignore[no-untyped-call]
        x.transpose(0, 1), *state, weight_ih, weight_hh, bias, kept, scale
    )
    return y.transpose(0, 1), (y[-1].clone(), c)


class _MaskedLSTM(torch.autograd.Function):
    """(T, B, I) → (T, B, H) and the last c (B, H). Time comes first: a step is a contiguous block of rows."""

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
    ) -> tuple[Tensor, Tensor]:
        length, rows, _ = x.shape
        x = x.contiguous()
        gates = product(x.flatten(0, 1), weight_ih, bias).view(length, rows, -1)
        h, c = (part.new_empty(length + 1, *part.shape) for part in (h0, c0))
        h[0], c[0] = h0, c0
        _run(gates, h, c, dropped_weight(weight_hh, kept, scale))
        ctx.save_for_backward(x, weight_ih, weight_hh, kept, gates, h, c)
        ctx.scale = scale
        return h[1:], c[-1].clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad_y, grad_last_c = grads
        x, weight_ih, weight_hh, kept, gates, h, c = ctx.saved_tensors
        factors, through = backward_factors(gates, c[:-1], _as_tanh((c[1:] * 2).sigmoid_()))
        recurrent = transposed(dropped_weight(weight_hh, kept, ctx.scale))
        by_h0, by_c0 = _run_back(factors, through, gates, grad_y, grad_last_c, recurrent)
        by_gates = factors.flatten(0, 1)
        by_x = product(by_gates, weight_ih.t()).view_as(x)
        columns = transposed(by_gates)  # once, for both
        by_weight_ih = product(columns, x.flatten(0, 1).t())
        by_weight_hh = product(columns, h[:-1].flatten(0, 1).t()).mul_(kept.to(h.dtype).mul_(ctx.scale))
        return by_x, by_h0, by_c0, by_weight_ih, by_weight_hh, by_gates.sum(0), None, None


def _run(gates: Tensor, h: Tensor, c: Tensor, recurrent: Tensor) -> None:
    """All time steps: turns `gates` (T, B, 4H) from x's share of the sums into activations, and fills h and c.

    h and c are (T + 1, B, H) with the initial state at step 0. The sums for g are made twice as large, since
    tanh z = 2σ(2z) − 1: torch's own tanh takes five times as long as its σ on some processors. Doubles `recurrent`
    (4H, H) in place, too.
    """
    size = h.shape[-1]
    gates[..., 2 * size : 3 * size].mul_(2)
    recurrent[2 * size : 3 * size].mul_(2)
    summed, squashed = prepacked_sum(recurrent), torch.empty_like(c[0])
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


def _as_tanh(sigmoid_of_double: Tensor) -> Tensor:
    """σ(2z) → tanh z = 2σ(2z) − 1, in place."""
    return torch.add(MINUS_ONE, sigmoid_of_double, alpha=2, out=sigmoid_of_double)


def _run_back(
    factors: Tensor, through: Tensor, gates: Tensor, grad_y: Tensor, grad_last_c: Tensor, recurrent: Tensor
) -> tuple[Tensor, Tensor]:
    """Back through time: turns `factors` into the gradients by the gates' sums, in place.

    grad_y is (T, B, H); `recurrent` (H, 4H) is transposed. Returns the gradients by the initial h and c.
    """
    length, rows, size = through.shape
    summed, dc, dh = prepacked_sum(recurrent), grad_last_c.clone(), grad_y[-1]
    dc_of_gates = dc.unsqueeze(1)  # (B, 1, H), follows dc
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
