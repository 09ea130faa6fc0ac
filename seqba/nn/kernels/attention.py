"""Attention written out with batched products, where torch's fused attention is slower on a CPU."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from seqba.nn.kernels.backwards import once_differentiable
from seqba.nn.kernels.processor import processor

LONGEST_KEYS = 512
"""Keys of a row up to which attention's weights are kept, T × S a head; those of longer rows would fill the memory."""

SHORT_ROWS = range(12, 65)
"""Keys of a row for which writing out is faster in float32, on processors with AVX-512."""

SHORTEST_KEYS = 16
"""Keys that a row has at least in the grid: torch's softmax takes eight times as long over fewer than a vector."""


def suits_writing_out(rows: Tensor, keys: int) -> bool:
    """Whether `packed_attention` is faster than torch's fused attention on these rows, with `keys` keys to a query.

    torch's fused attention for CPUs makes products of single heads of single rows. In bfloat16 oneDNN prepares each of
    them anew, and the backward takes four times as long as written out, with products of all heads at once. In float32
    short rows take four fifths of the time written out, AMD's or Intel's processors with AVX-512, and shorter or longer
    ones as long or longer. Decided by types, sizes and the machine, never by timing, so that a resumed run computes as
    before.
    """
    if rows.device.type != "cpu":
        return False
    if rows.dtype == torch.bfloat16:
        return keys <= LONGEST_KEYS
    # A compiler can't trace what reads the processor, and fuses float32 as it is.
    is_eager_float32 = rows.dtype == torch.float32 and not torch.compiler.is_compiling()
    return is_eager_float32 and keys in SHORT_ROWS and processor().is_wide


class HeadLayout:
    """Places of the heads of packed rows (N, parts·H·d) in a padded grid of heads (parts, B·H, T, d).

    Rows of fewer than `SHORTEST_KEYS` tokens are padded to so many.

    Args:
        mask: (B, T) bool, True where a token is.
        heads: H.
        index: (N,) int64, the flat position of each packed row in the grid (B, T); None where these are all of it, in
            its order.
    """

    def __init__(self, mask: Tensor, heads: int, index: Tensor | None = None) -> None:
        batch, length = mask.shape
        missing = max(0, SHORTEST_KEYS - length)
        self.mask = nn.functional.pad(mask, (0, missing)) if missing else mask
        self.heads = heads
        self.is_padded = index is not None or missing > 0
        place = torch.arange(batch * length, device=mask.device) if index is None else index
        self._place = place // length * (length + missing) + place % length
        self._of_grid: dict[int, Tensor] = {}
        self._of_packed: dict[int, Tensor] = {}

    def spread(self, packed: Tensor, parts: int) -> Tensor:
        """(N, parts·H·d) → (parts, B·H, T, d), with the head of some row in the place of padding."""
        batch, length = self.mask.shape
        if parts not in self._of_grid:
            row = torch.zeros_like(self.mask, dtype=torch.int64).flatten()
            row[self._place] = torch.arange(len(self._place), device=row.device)
            row, part, head = row.view(1, batch, 1, length), self._numbers(parts, -4), self._numbers(self.heads, -2)
            self._of_grid[parts] = ((row * parts + part) * self.heads + head).flatten()  # (parts, B, H, T)
        width = packed.shape[1] // (parts * self.heads)
        grid = packed.reshape(-1, width).index_select(0, self._of_grid[parts])
        return grid.view(parts, batch * self.heads, length, width)

    def gather(self, grid: Tensor) -> Tensor:
        """(parts, B·H, T, d) → (N, parts·H·d)."""
        parts, _, length, width = grid.shape
        if parts not in self._of_packed:
            row, time = self._place.view(-1, 1, 1) // length, self._place.view(-1, 1, 1) % length
            part, head = self._numbers(parts, -2), self._numbers(self.heads, -1)
            first = (part * self.mask.shape[0] + row) * self.heads + head
            self._of_packed[parts] = (first * length + time).flatten()  # (N, parts, H)
        return grid.view(-1, width).index_select(0, self._of_packed[parts]).view(-1, parts * self.heads * width)

    def of_heads(self, mask: Tensor) -> Tensor:
        """A mask of places (B, T), for each head (B·H, T)."""
        return mask.unsqueeze(1).expand(-1, self.heads, -1).flatten(0, 1)

    def _numbers(self, count: int, dimension: int) -> Tensor:
        """0, …, count − 1 along a dimension, which is counted from the last."""
        return torch.arange(count, device=self.mask.device).view(-1, *[1] * (-1 - dimension))


def packed_attention(
    query: Tensor, memory: Tensor | None, queries: HeadLayout, keys: HeadLayout, *, causal: bool
) -> Tensor:
    """Scaled dot-product attention of packed rows, written out: softmax(Q·Kᵀ/√d)·V per head.

    Heads go from the packed rows to where products want them, and back, in one step. Products have the dtype of the
    rows; the softmax is float32 or wider. The backward keeps Q, K, V and the weights.

    Args:
        query: (N, 3·H·d), queries, keys and values of self-attention; (N, H·d), queries, where there is a memory.
        memory: (N', 2·H·d), keys and values; None for self-attention.
        queries: of the rows of `query`.
        keys: of the rows of `memory`; for self-attention the same as `queries`.
        causal: whether a token sees its past alone; rows are padded on the right.

    Returns:
        (N, H·d), packed.
    """
    result: Tensor = _PackedAttention.apply(query, memory, queries, keys, causal)  # type: ignore[no-untyped-call]
    return result


class _PackedAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, memory: Tensor | None, queries: HeadLayout, keys: HeadLayout, causal: bool
    ) -> Tensor:
        with torch.autocast(query.device.type, enabled=False):
            if memory is None:
                q, k, v = queries.spread(query, 3)
            else:
                (q,), (k, v) = queries.spread(query, 1), keys.spread(memory, 2)
            seen = _unseen(queries, keys, q, causal=causal)
            scores = torch.baddbmm(seen, q, k.transpose(1, 2), alpha=_scale(q))
            weights = scores.softmax(-1, dtype=torch.promote_types(q.dtype, torch.float32))
            if queries.is_padded:  # what stands there takes no part in any gradient either
                weights.masked_fill_(~queries.of_heads(queries.mask).unsqueeze(2), 0)
            weights = weights.to(q.dtype)
            ctx.save_for_backward(q, k, v, weights)
            ctx.queries, ctx.keys, ctx.has_memory = queries, keys, memory is not None
            return queries.gather(torch.bmm(weights, v).unsqueeze(0))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, weights = ctx.saved_tensors
        (grad,) = ctx.queries.spread(grads[0], 1)
        by_weights = torch.bmm(grad, v.transpose(1, 2))
        wide = torch.promote_types(q.dtype, torch.float32)
        by_scores = torch.ops.aten._softmax_backward_data(by_weights.to(wide), weights.to(wide), -1, wide).to(q.dtype)
        nothing = q.new_zeros(1, 1, 1)
        by_q = q.new_empty(1, *q.shape)
        by_kv = k.new_empty(2, *k.shape)
        if not ctx.has_memory:
            both = q.new_empty(3, *q.shape)
            by_q, by_kv = both[:1], both[1:]
        torch.baddbmm(nothing, by_scores, k, beta=0, alpha=_scale(q), out=by_q[0])
        torch.baddbmm(nothing, by_scores.transpose(1, 2), q, beta=0, alpha=_scale(q), out=by_kv[0])
        torch.bmm(weights.transpose(1, 2), grad, out=by_kv[1])
        if not ctx.has_memory:
            return ctx.queries.gather(both), None, None, None, None
        return ctx.queries.gather(by_q), ctx.keys.gather(by_kv), None, None, None


def _scale(q: Tensor) -> float:
    return 1 / math.sqrt(q.shape[-1])


def _unseen(queries: HeadLayout, keys: HeadLayout, like: Tensor, *, causal: bool) -> Tensor:
    """−∞ where a query doesn't see a key, 0 elsewhere: broadcastable to (B·H, T, S)."""
    if causal:
        length = queries.mask.shape[1]
        return like.new_full((length, length), -math.inf).triu_(1).unsqueeze(0)
    if not keys.is_padded:
        return like.new_zeros(1, 1, 1)
    hidden = ~keys.of_heads(keys.mask).unsqueeze(1)  # (B·H, 1, S)
    return like.new_zeros(hidden.shape).masked_fill_(hidden, -math.inf)
