"""Difference of copies without holding their logits: R-Drop's divergence, fraternal dropout's distance, for any M."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from seqba.nn.kernels.backwards import once_differentiable
from seqba.nn.kernels.casts import narrow
from seqba.nn.kernels.loss import chunk_rows
from seqba.nn.kernels.products import product, product_dtype
from seqba.nn.kernels.recurring import with_recurring_rows


def copy_divergence(hidden: Tensor, weight: Tensor, *, copies: int) -> Tensor:
    """Mean Kullback-Leibler divergence between what two copies of a token predict, summed over tokens.

        p_m = softmax(hidden_m · weightᵀ)
        J = Σ_n 1/(M(M−1)) · Σ_{i≠j} KL(p_i ‖ p_j)  =  Σ_n 1/(M−1) · Σ_i Σ_v (p_i − p̄)(log p_i − mean log p)

    The second form, which is computed, has no cancellation; its expectation doesn't depend on M. For M = 2 it is
    R-Drop's ½·(KL(p_1 ‖ p_2) + KL(p_2 ‖ p_1)). Tokens are taken a chunk at a time with all their copies, and each
    chunk's gradient is computed while its logits are at hand.

    Args:
        hidden: (M·N, D), floating, copy after copy; rows of padding left out.
        weight: (V, D), the output embedding. Under autocast the products run in autocast's dtype, the rest in float32.
        copies: M, at least 2.

    Returns:
        J, 0-dim, in nats; float32 or wider.

    Raises:
        ValueError: for shapes that don't fit, or fewer than two copies.

    Source: Liang et al. 2021 (R-Drop), equation 2, for M = 2.
    """
    _check(hidden, weight, copies)
    divergence: Tensor = _CopyDivergence.apply(hidden, weight, copies)  # type: ignore[no-untyped-call]
    return divergence


def copy_distance(hidden: Tensor, weight: Tensor, *, copies: int) -> Tensor:
    """Mean square of the difference between two copies' logits, summed over tokens.

        z_m = hidden_m · weightᵀ
        D = Σ_n 1/(M(M−1)) · Σ_{i≠j} ‖z_i − z_j‖² / V  =  Σ_n 2/(M−1) · Σ_i ‖z_i − z̄‖² / V

    The second form's expectation doesn't depend on M. Logits are never made: ‖h·Wᵀ‖² = h·(WᵀW)·hᵀ, of which WᵀW is the
    same for all rows.

    Args:
        hidden: (M·N, D), floating, copy after copy.
        weight: (V, D), the output embedding.
        copies: M, at least 2.

    Returns:
        D, 0-dim; float32 or wider, also under autocast.

    Raises:
        ValueError: for shapes that don't fit, or fewer than two copies.

    Source: Zołna et al. 2018, "Fraternal Dropout", for M = 2.
    """
    _check(hidden, weight, copies)
    wide = torch.promote_types(hidden.dtype, torch.float32)
    with torch.autocast(hidden.device.type, enabled=False):
        stacked = hidden.to(wide).view(copies, -1, hidden.shape[1])  # (M, N, D)
        offsets = (stacked - stacked.mean(0)).flatten(0, 1)
        table = weight.to(wide)
        squares = (offsets @ (table.t() @ table) * offsets).sum()
    return squares * (2 / ((copies - 1) * weight.shape[0]))


def _check(hidden: Tensor, weight: Tensor, copies: int) -> None:
    if hidden.dim() != 2 or weight.dim() != 2 or hidden.shape[1] != weight.shape[1]:
        raise ValueError(f"hidden (M·N, D) and weight (V, D) don't fit: {tuple(hidden.shape)}, {tuple(weight.shape)}")
    if copies < 2 or hidden.shape[0] % copies:
        raise ValueError(f"{hidden.shape[0]} rows aren't those of {copies} copies; there must be at least 2")


class _CopyDivergence(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, copies: int) -> Tensor:
        dtype = product_dtype(hidden)
        wide = torch.promote_types(hidden.dtype, torch.float32)
        table = narrow(weight, dtype)
        stacked = hidden.view(copies, -1, hidden.shape[1])  # (M, N, D)
        grad_hidden = torch.empty_like(stacked)
        grad_weight = torch.zeros_like(weight, dtype=wide)
        divergence = hidden.new_zeros((), dtype=wide)
        tokens = chunk_rows(hidden, copies * weight.shape[0])
        with torch.autocast(hidden.device.type, enabled=False):
            for start in range(0, stacked.shape[1], tokens):
                part = slice(start, start + tokens)
                own = stacked[:, part].to(dtype).flatten(0, 1)
                chunk = with_recurring_rows(own)  # (M·c, D), and what means nothing
                logits = product(chunk, table)[: len(own)].to(wide).view(copies, -1, weight.shape[0])
                chunk_divergence, grad_logits = _divergence_and_gradient(logits)
                divergence += chunk_divergence
                flat = with_recurring_rows(grad_logits.flatten(0, 1).to(dtype))
                grad_hidden[:, part] = product(flat, table.t())[: len(own)].view(copies, -1, hidden.shape[1])
                grad_weight += flat.t() @ chunk
        ctx.save_for_backward(grad_hidden.view_as(hidden), grad_weight.to(weight.dtype))
        return divergence

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        grad_hidden, grad_weight = ctx.saved_tensors
        return grad_hidden * grad, grad_weight * grad, None


def _divergence_and_gradient(logits: Tensor) -> tuple[Tensor, Tensor]:
    """J over a chunk of logits (M, c, V), and its gradient by them.

    With a = log p_i − mean log p:  ∂J/∂z_i = 1/(M−1) · (p_i ∘ (a − Σ_v p_i a) + p_i − p̄)
    """
    logs = logits.log_softmax(2)
    probabilities = logs.exp()
    logs -= logs.mean(0)
    offsets = probabilities - probabilities.mean(0)
    scale = 1 / (logits.shape[0] - 1)
    divergence = scale * (offsets * logs).sum()
    expected = (probabilities * logs).sum(2, keepdim=True)
    gradient = offsets.addcmul_(probabilities, logs.sub_(expected)).mul_(scale)
    return divergence, gradient
