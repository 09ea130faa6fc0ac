"""An LSTM layer over stacked copies on a GPU: a time step is one batched product and one kernel of Triton's.

The same layer as `seqba.nn.kernels.masked_lstm` in torch's operations, which launch a dozen kernels for a step.
"""

from __future__ import annotations

import importlib
from functools import cache
from typing import Any

import torch
from torch import Tensor

from seqba.nn.kernels.backwards import once_differentiable
from seqba.nn.kernels.casts import casts_or_weights, narrow, shared_cast
from seqba.nn.kernels.products import product, product_as, sum_as


def has_fused_cell(device: torch.device) -> bool:
    """Whether a device runs Triton's kernels: a GPU, where Triton is installed."""
    return device.type == "cuda" and _cells() is not None


@cache
def _cells() -> Any:
    """The module of the kernels, or None: a second to import, and only where there is a GPU."""
    try:
        return importlib.import_module("seqba.nn.kernels.lstm_cell")
    except ImportError:
        return None


class FusedLSTM(torch.autograd.Function):
    """Rows x (k·B, T, I), h0, c0, W_ih, W_hh, bias, masks, their scale and the products' dtype → y (k·B, T, H), last c.

    Everything stays batch-first: a step reads and writes rows of T·H numbers apart, and each copy's tokens lie together
    for the gradients by the weights. As much is kept for the backward as in `masked_lstm`.
    """

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
        """Runs all time steps."""
        (rows, length, _), size = x.shape, weight_hh.shape[1]
        x = x.contiguous()
        inputs = product(x.flatten(0, 1).to(dtype), narrow(weight_ih, dtype), bias.to(dtype))
        gates = inputs.to(x.dtype).view(rows, length, -1)
        h, c = x.new_empty(2, rows, length + 1, size)
        h[:, 0], c[:, 0] = h0, c0
        _run(gates, h, c, dropped(weight_hh, kept, scale, dtype))
        ctx.save_for_backward(x, weight_ih, weight_hh, kept, gates, h, c)
        ctx.scale, ctx.dtype = scale, dtype
        ctx.casts = shared_cast(weight_ih, dtype), shared_cast(weight_hh, dtype)
        return h[:, 1:], c[:, -1].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Runs back through time, and takes the gradients by x and the weights in one product each."""
        by_y, by_last_c = grads
        x, weight_ih, weight_hh, kept, gates, h, c = ctx.saved_tensors
        cast_ih, cast_hh = casts_or_weights(ctx.casts, (weight_ih, weight_hh))
        weight = dropped(cast_hh, kept, ctx.scale, ctx.dtype)
        by_gates, by_h0, by_c0 = _run_back(gates, c, by_y.contiguous(), by_last_c, weight)
        tokens = by_gates.flatten(0, 1)
        by_x = product(tokens, cast_ih.to(ctx.dtype).t()).to(x.dtype).view_as(x)
        by_weight_ih = product_as(tokens.t(), x.flatten(0, 1).to(ctx.dtype).t(), weight_ih.dtype)
        by_weight_hh = _masked_gradient(tokens, h[:, :-1], kept, ctx.scale)
        return by_x, by_h0, by_c0, by_weight_ih, by_weight_hh, sum_as(tokens, h.dtype), None, None, None


def _run(gates: Tensor, h: Tensor, c: Tensor, weight: Tensor) -> None:
    """Runs all time steps: turns `gates` (R, T, 4H) from x's share of the sums into activations, and fills h and c.

    h and c are (R, T + 1, H) with the initial state at step 0; weight is (k, 4H, H), in the dtype of products.
    """
    cells, (copies, width, size) = _cells(), weight.shape
    rows, columns = len(h) // copies, weight.transpose(1, 2)
    last_h, sums = weight.new_empty(copies, rows, size), weight.new_empty(copies, rows, width)
    last_h.copy_(h[:, 0].view(last_h.shape))
    with torch.cuda.device_of(gates):  # type: ignore[no-untyped-call]
        for step in range(gates.shape[1]):
            torch.bmm(last_h, columns, out=sums)
            cells.cell(gates, sums, h, c, last_h, step)


def _run_back(gates: Tensor, c: Tensor, by_y: Tensor, by_last_c: Tensor, weight: Tensor) -> tuple[Tensor, ...]:
    """Runs back through time: the gradients by the gates' sums (R, T, 4H), narrow as `weight`, and by h0 and c0."""
    cells, (copies, _, size) = _cells(), weight.shape
    by_gates = torch.empty_like(gates, dtype=weight.dtype)
    by_c = by_last_c.clone(memory_format=torch.contiguous_format)  # the kernel goes by rows of H, and writes to them
    steps = by_gates.view(copies, -1, *gates.shape[1:]).unbind(2)  # (k, B, 4H) each
    by_h = weight.new_zeros(copies, len(gates) // copies, size)
    with torch.cuda.device_of(gates):  # type: ignore[no-untyped-call]
        for step in reversed(range(len(steps))):
            cells.cell_back(by_gates, gates, c, by_y, by_h, by_c, step)
            torch.bmm(steps[step], weight, out=by_h)
    return by_gates, by_h.flatten(0, 1).to(c.dtype), by_c


def _masked_gradient(by_gates: Tensor, last_h: Tensor, kept: Tensor, scale: float) -> Tensor:
    """Σ over copies of (by the gates' sums)ᵀ·h·mask·scale, the gradient by W_hh (4H, H).

    by_gates is (k·B·T, 4H), last_h (k·B, T, H); each copy's gradient passes through its own mask.
    """
    total = torch.zeros(kept.shape[1:], dtype=last_h.dtype, device=last_h.device)
    columns = last_h.to(by_gates.dtype).reshape(len(by_gates), -1)
    for left, right, mask in zip(by_gates.chunk(len(kept)), columns.chunk(len(kept)), kept, strict=True):
        total.addcmul_(product_as(left.t(), right.t(), total.dtype), mask)
    return total.mul_(scale)


def dropped(weight: Tensor, kept: Tensor, scale: float, dtype: torch.dtype) -> Tensor:
    """W·mask·scale, (k, 4H, H) for masks int8 (k, 4H, H), in the dtype of products."""
    return kept.to(dtype).mul_(scale).mul_(narrow(weight, dtype))
