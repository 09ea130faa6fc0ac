"""Triton's kernels of an LSTM's cell: what a time step computes beside its product, one launch forward and one back.

Imported on a GPU alone (`seqba.nn.kernels.fused_lstm`). The environment's TRITON_INTERPRET=1 runs them in Python.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

BLOCK = 256
"""Units of a program."""


@triton.jit
def _tanh(z):
    return 2 * tl.sigmoid(2 * z) - 1


@triton.jit
def _load(array, at, inside, dtype: tl.constexpr):
    return tl.load(array + at, mask=inside, other=0.0).to(dtype)


@triton.jit(do_not_specialize=["step"])
def _forward_kernel(gates, sums, h, c, narrow_h, step, length, size, block: tl.constexpr):
    row, unit = tl.program_id(0).to(tl.int64), tl.program_id(1) * block + tl.arange(0, block)
    inside = unit < size
    wide = c.dtype.element_ty
    gate, own = (row * length + step) * 4 * size + unit, row * 4 * size + unit
    i = tl.sigmoid(_load(gates, gate, inside, wide) + _load(sums, own, inside, wide))
    f = tl.sigmoid(_load(gates, gate + size, inside, wide) + _load(sums, own + size, inside, wide))
    g = _tanh(_load(gates, gate + 2 * size, inside, wide) + _load(sums, own + 2 * size, inside, wide))
    o = tl.sigmoid(_load(gates, gate + 3 * size, inside, wide) + _load(sums, own + 3 * size, inside, wide))
    before = (row * (length + 1) + step) * size + unit
    next_c = f * _load(c, before, inside, wide) + i * g
    next_h = o * _tanh(next_c)
    tl.store(gates + gate, i, mask=inside)
    tl.store(gates + gate + size, f, mask=inside)
    tl.store(gates + gate + 2 * size, g, mask=inside)
    tl.store(gates + gate + 3 * size, o, mask=inside)
    tl.store(c + before + size, next_c, mask=inside)
    tl.store(h + before + size, next_h, mask=inside)
    tl.store(narrow_h + row * size + unit, next_h.to(narrow_h.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["step"])
def _backward_kernel(by_gates, gates, c, by_y, by_h, by_c, step, length, size, block: tl.constexpr):
    row, unit = tl.program_id(0).to(tl.int64), tl.program_id(1) * block + tl.arange(0, block)
    inside = unit < size
    wide = c.dtype.element_ty
    narrow = by_gates.dtype.element_ty
    token, own = row * length + step, row * size + unit
    gate, before = token * 4 * size + unit, (row * (length + 1) + step) * size + unit
    i, f = _load(gates, gate, inside, wide), _load(gates, gate + size, inside, wide)
    g, o = _load(gates, gate + 2 * size, inside, wide), _load(gates, gate + 3 * size, inside, wide)
    squashed = _tanh(_load(c, before + size, inside, wide))
    dh = _load(by_y, token * size + unit, inside, wide) + _load(by_h, own, inside, wide)
    dc = _load(by_c, own, inside, wide) + dh * o * (1 - squashed * squashed)
    last_c = _load(c, before, inside, wide)
    tl.store(by_gates + gate, (dc * g * i * (1 - i)).to(narrow), mask=inside)
    tl.store(by_gates + gate + size, (dc * last_c * f * (1 - f)).to(narrow), mask=inside)
    tl.store(by_gates + gate + 2 * size, (dc * i * (1 - g * g)).to(narrow), mask=inside)
    tl.store(by_gates + gate + 3 * size, (dh * squashed * o * (1 - o)).to(narrow), mask=inside)
    tl.store(by_c + own, dc * f, mask=inside)


def cell(gates: Tensor, sums: Tensor, h: Tensor, c: Tensor, narrow_h: Tensor, step: int) -> None:
    """Runs one time step forward: i, f, o = σ(…), g = tanh(…), c_t = f·c_{t−1} + i·g, h_t = o·tanh(c_t).

    Args:
        gates: (R, T, 4H), the input's share of the gates' sums; those of the step become the activations i, f, g, o.
        sums: (R, 4H), the state's share, in the dtype of products.
        h: (R, T + 1, H), h_t is written behind the step.
        c: (R, T + 1, H), c_{t−1} at the step; c_t is written behind it.
        narrow_h: (R, H), h_t in the dtype of products.
        step: t, from 0.
    """
    rows, length, size = gates.shape[0], gates.shape[1], h.shape[2]
    grid = rows, -(-size // BLOCK)  # triton.cdiv takes the host two microseconds
    _forward_kernel[grid](gates, sums, h, c, narrow_h, step, length, size, BLOCK)


def cell_back(by_gates: Tensor, gates: Tensor, c: Tensor, by_y: Tensor, by_h: Tensor, by_c: Tensor, step: int) -> None:
    """Runs one time step back: the gradient by the gates' sums, and what goes on to c_{t−1}.

    Args:
        by_gates: (R, T, 4H) in the dtype of products; the step's gradients are written.
        gates: (R, T, 4H), the activations.
        c: (R, T + 1, H).
        by_y: (R, T, H), the gradient by h_t from outside the layer.
        by_h: (R, H), the gradient by h_t from the step behind, in the dtype of products.
        by_c: (R, H), the gradient by c_t from the step behind; becomes that by c_{t−1}.
        step: t, from 0.
    """
    rows, length, size = by_y.shape
    grid = rows, -(-size // BLOCK)
    _backward_kernel[grid](by_gates, gates, c, by_y, by_h, by_c, step, length, size, BLOCK)
