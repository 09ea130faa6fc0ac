"""Label-smoothed cross-entropy fused with the output projection: the logits never exist all at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from seqba.nn.kernels.backwards import once_differentiable
from seqba.nn.kernels.casts import narrow
from seqba.nn.kernels.prepacked import Product, chunked_product
from seqba.nn.kernels.processor import processor
from seqba.nn.kernels.products import is_widened, product_as, product_dtype, transposed
from seqba.nn.kernels.recurring import with_recurring_rows

CHUNK_ELEMENTS = 1 << 21
"""Logits held at a time (8 MB in float32): few enough to stay in a cache, enough rows for a full-speed product."""
LARGE_CHUNK_ELEMENTS = 1 << 23
"""The same in 16 bits and on Intel's processors: adding up each chunk's gradient by the weight counts there."""
BLOCK_ELEMENTS = 1 << 18
"""16-bit logits whose softmax is taken at a time, in 1 MB of float32."""
GPU_CHUNK_ELEMENTS = 1 << 26
"""Logits that a GPU holds (256 MB in float32): on an H100 an eighth of the time of a CPU's chunks."""


def chunk_rows(like: Tensor, columns: int, *, is_large: bool = False) -> int:
    """How many rows of so many logits are held at a time.

    Args:
        like: a tensor on the device.
        columns: logits of a row.
        is_large: whether a CPU's chunk is a large one.
    """
    if like.device.type != "cpu":
        return max(1, GPU_CHUNK_ELEMENTS // columns)
    return max(1, (LARGE_CHUNK_ELEMENTS if is_large else CHUNK_ELEMENTS) // columns)


def label_smoothed_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    target: Tensor,
    *,
    bias: Tensor | None = None,
    smoothing: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Output projection and label-smoothed cross-entropy in one, summed over tokens.

        z = hidden · weightᵀ + bias
        loss = Σ_n −(1 − ε)·log p(target_n) − ε/(V−1) · Σ_{v ≠ target_n} log p(v)
        nll  = Σ_n −log p(target_n)

    Rows are taken a chunk at a time; each chunk's gradient is computed while its logits are at hand, so that a backward
    costs no second projection and M·T×V logits are never held. Equal to `F.cross_entropy(z, target,
    label_smoothing=ε·V/(V−1), reduction="sum")`.

    Args:
        hidden: (N, D), floating; rows of padding left out.
        weight: (V, D), the output embedding. Under autocast the products run in autocast's dtype, sums in float32.
        target: (N,) int64 in [0, V).
        bias: (V,) or None.
        smoothing: ε in [0, 1): the mass that goes to the other V − 1 words.

    Returns:
        (loss, nll), 0-dim, in nats; only the loss has a gradient. float32 or wider.

    Raises:
        ValueError: for shapes that don't fit, or ε outside [0, 1).

    Source: Szegedy et al. 2016 as in fairseq's `label_smoothed_cross_entropy`; the chunked gradient as in Liger
    (Hsu et al. 2024).
    """
    if hidden.dim() != 2 or weight.dim() != 2 or hidden.shape[1] != weight.shape[1]:
        raise ValueError(f"hidden (N, D) and weight (V, D) don't fit: {tuple(hidden.shape)}, {tuple(weight.shape)}")
    if target.shape != hidden.shape[:1]:
        raise ValueError(f"target must be ({hidden.shape[0]},), one word per row, not {tuple(target.shape)}")
    if not 0 <= smoothing < 1:
        raise ValueError(f"smoothing is {smoothing}; it must be in [0, 1)")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"bias must be ({weight.shape[0]},), not {tuple(bias.shape)}")
    if len(weight) == 1:
        smoothing = 0.0  # there is no other word
    loss, nll = _FusedCrossEntropy.apply(  # type: ignore[no-untyped-call]
        hidden, weight, bias, target, smoothing, torch.is_grad_enabled()
    )
    return loss, nll


class _FusedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        target: Tensor,
        smoothing: float,
        is_trained: bool,  # which `needs_input_grad` doesn't tell
    ) -> tuple[Tensor, Tensor]:
        dtype = product_dtype(hidden)
        wide = torch.promote_types(hidden.dtype, torch.float32)
        if is_widened(hidden, dtype):
            dtype = wide
        table = narrow(weight, dtype)
        needs = tuple(is_trained and needed for needed in ctx.needs_input_grad[:3])
        others = smoothing / max(weight.shape[0] - 1, 1)
        evenly = _Evenly.of(hidden, weight, wide, others) if smoothing else None
        gradients = _Gradients(hidden, weight, bias, needs, dtype, wide, evenly)
        loss = nll = None
        rows = chunk_rows(hidden, weight.shape[0], is_large=dtype != wide or processor().is_intel)
        with torch.autocast(hidden.device.type, enabled=False):
            project = chunked_product(table, None if bias is None else bias.to(dtype), len(hidden))
            project_back = chunked_product(table.t(), None, len(hidden)) if needs[0] else None
            for start in range(0, hidden.shape[0], rows):
                part = slice(start, start + rows)
                chunk = with_recurring_rows(hidden[part].to(dtype))
                logits = project(chunk)
                count = len(target[part])
                logits[count:] = 0  # the gradient of rows that mean nothing
                for block, block_target in _blocks(logits[:count], target[part], wide):
                    block_loss, block_nll = _loss_and_gradient(
                        block,
                        block_target,
                        1 - smoothing - others,
                        wide,
                        wants_gradient=any(needs),
                        project_again=partial(project, chunk),
                    )
                    loss = block_loss if loss is None else loss + block_loss
                    nll = block_nll if nll is None else nll + block_nll
                gradients.add(part, chunk, project_back, logits)  # by now the gradient by them
            if loss is None or nll is None:  # no rows at all
                loss, nll = hidden.new_zeros((2,), dtype=wide)
            if evenly is not None:
                loss = torch.sub(loss, evenly.sum_of_logits(bias), alpha=others)
        ctx.save_for_backward(*gradients.tensors())
        ctx.mark_non_differentiable(nll)
        return loss, nll

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor, _grad_nll: Tensor) -> tuple[Tensor | None, ...]:
        scaled = [None if tensor is None else tensor * grad_loss for tensor in ctx.saved_tensors]
        return (*scaled, None, None, None)


@dataclass(frozen=True)
class _Evenly:
    """What smoothing gives to all words alike, which needs neither logits nor products: sums are enough.

    Attributes:
        others: o = ε/(V−1), taken off the gradient by every logit.
        rows: Σ_n h_n, (D,), which o times is taken off each row of the gradient by the weight.
        words: Σ_v W_v, (D,), which o times is taken off each row of the gradient by hidden.
        count: N, which o times is taken off the gradient by a bias.
    """

    others: float
    rows: Tensor
    words: Tensor
    count: int

    @classmethod
    def of(cls, hidden: Tensor, weight: Tensor, wide: torch.dtype, others: float) -> _Evenly:
        """Of hidden (N, D) and weight (V, D), summed in `wide`."""
        return cls(others, hidden.sum(0, dtype=wide), weight.sum(0, dtype=wide), len(hidden))

    def sum_of_logits(self, bias: Tensor | None) -> Tensor:
        """Σ_n Σ_v z = (Σ_n h_n)·(Σ_v W_v) + N·Σ_v b_v."""
        total = self.rows.dot(self.words)
        return total if bias is None else total + self.count * bias.sum(dtype=total.dtype)


class _Gradients:
    """Gradients of the summed loss by hidden, weight and bias, built chunk by chunk; None where none is needed."""

    def __init__(
        self,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        needs: tuple[bool, ...],
        dtype: torch.dtype,
        wide: torch.dtype,
        evenly: _Evenly | None,
    ) -> None:
        self.hidden = torch.empty_like(hidden) if needs[0] else None
        # The same sizes either way; for AMX's tiles columns lie in memory one after the other, as `add` computes them.
        self._is_turned = weight.is_cpu and dtype == torch.bfloat16 and processor().has_amx
        shape = reversed(weight.shape) if self._is_turned else weight.shape
        zeros = weight.new_zeros(tuple(shape), dtype=wide) if needs[1] else None
        self.weight = zeros.t() if zeros is not None and self._is_turned else zeros
        self.bias = torch.zeros_like(bias, dtype=wide) if bias is not None and needs[2] else None
        if evenly is not None and self.weight is not None:
            self.weight.sub_(evenly.rows, alpha=evenly.others)
        if evenly is not None and self.bias is not None:
            self.bias.sub_(evenly.others * evenly.count)
        self._evenly = evenly
        self._weight_dtype = weight.dtype

    def add(self, part: slice, chunk: Tensor, project_back: Product | None, grad_logits: Tensor) -> None:
        if self.hidden is not None and project_back is not None:
            by_rows = project_back(grad_logits)[: len(self.hidden[part])]
            if self._evenly is None:
                self.hidden[part] = by_rows
            else:
                torch.sub(by_rows, self._evenly.words, alpha=self._evenly.others, out=self.hidden[part])
        if self.weight is not None:
            if self.weight.dtype == chunk.dtype:
                self.weight.addmm_(grad_logits.t(), chunk)
            elif self._is_turned:
                self.weight.t().add_(chunk.t().contiguous() @ grad_logits)
            elif chunk.device.type == "cpu":
                self.weight += grad_logits.t() @ chunk
            else:
                self.weight += product_as(grad_logits.t(), chunk.t(), self.weight.dtype)
        if self.bias is not None:
            self.bias += grad_logits.sum(0)

    def tensors(self) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        weight = self.weight.to(self._weight_dtype) if self.weight is not None else None
        if weight is not None and self._is_turned:
            weight = transposed(weight.t())
        bias = self.bias.to(self._weight_dtype) if self.bias is not None else None
        return self.hidden, weight, bias


def _blocks(logits: Tensor, target: Tensor, wide: torch.dtype) -> Iterator[tuple[Tensor, Tensor]]:
    """A chunk's rows as they are; a CPU's 16-bit ones in blocks, whose float32 copies stay near the core."""
    if logits.dtype == wide or logits.device.type != "cpu":
        yield logits, target
        return
    rows = max(1, BLOCK_ELEMENTS // logits.shape[1])
    yield from zip(torch.split(logits, rows), torch.split(target, rows), strict=True)


def _loss_and_gradient(
    narrow_logits: Tensor,
    target: Tensor,
    on_target: float,
    wide: torch.dtype,
    *,
    wants_gradient: bool,
    project_again: Callable[[], Tensor],
) -> tuple[Tensor, Tensor]:
    """Sums over some rows, computed in `wide`, without smoothing's equal share o of the other words.

    With lse = log Σ exp z, o = ε/(V−1) and c = 1 − ε − o:  loss = Σ_n lse − c·z_target − o·Σ_v z_v, because the
    coefficients add up to one; ∂loss/∂z = softmax(z) − c·[v = target] − o. What has no o in it is computed here; the
    gradient is written over the logits.

    Args:
        narrow_logits: (n, V).
        target: (n,) int64.
        on_target: c.
        wide: dtype of sums.
        wants_gradient: whether it is written.
        project_again: makes `narrow_logits` once more, for where they are wide and the softmax takes their place.
    """
    logits = narrow_logits.to(wide)
    column = target.unsqueeze(1)
    at_target = logits.gather(1, column)  # (n, 1)
    peak = None if logits.is_cpu else logits.amax(1, keepdim=True)
    probabilities = torch.softmax(logits, 1, out=logits)  # goes through a row in one piece, while it is in the cache
    if peak is None:  # a CPU looks, a GPU would have to wait for it
        likelihood = probabilities.gather(1, column)
        if likelihood.min() < torch.finfo(wide).tiny:
            again = project_again() if logits is narrow_logits else narrow_logits.to(wide)
            peak = again.amax(1, keepdim=True)
    if peak is not None:
        likelihood = probabilities.amax(1, keepdim=True)  # of the likeliest word, which is never 0
    log_normaliser = (at_target if peak is None else peak) - likelihood.log()
    nll = log_normaliser - at_target
    loss = torch.sub(log_normaliser, at_target, alpha=on_target).sum()
    if wants_gradient:
        probabilities.scatter_add_(1, column, torch.full_like(at_target, -on_target))
        if probabilities.dtype != narrow_logits.dtype:
            narrow_logits.copy_(probabilities)
    return loss, nll.sum()
