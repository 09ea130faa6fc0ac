"""Multi-head attention over packed rows: one projection for queries, keys and values."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from seqba.models.unpadding import GraphRows, Packing, Rows
from seqba.nn import Dropout
from seqba.nn.kernels.attention import HeadLayout, packed_attention, suits_writing_out
from seqba.nn.kernels.flash import flash_attention, suits_flash
from seqba.nn.kernels.linear import gathered_linear, linear
from seqba.nn.kernels.products import product_dtype


class Attention(nn.Module):
    """Multi-head scaled dot-product attention.

        softmax(Q·Kᵀ/√d)·V per head, with Q = x·W_q, [K, V] = m·W_kv; for self-attention m = x in a single product

    Args:
        embed_dim: D of the queries and of the output.
        heads: H; d = D / H.
        memory_dim: width of what is attended to, for cross-attention; None for self-attention.
        dropout: on the attention weights; each (row, head, query, key) has its own draw.

    Raises:
        ValueError: if H doesn't divide D.

    Source: Vaswani et al. 2017, section 3.2.2.
    """

    def __init__(self, embed_dim: int, heads: int, *, memory_dim: int | None = None, dropout: float = 0.0) -> None:
        super().__init__()
        if embed_dim % heads:
            raise ValueError(f"the width {embed_dim} isn't a multiple of the {heads} attention heads")
        self.heads = heads
        self.head_dim = embed_dim // heads
        if memory_dim is None:
            self.input_projection = nn.Linear(embed_dim, 3 * embed_dim)
        else:
            self.query_projection = nn.Linear(embed_dim, embed_dim)
            self.memory_projection = nn.Linear(memory_dim, 2 * embed_dim)
        self.output_projection = nn.Linear(embed_dim, embed_dim)
        self.dropout = Dropout(dropout)
        self._initialise()

    def _initialise(self) -> None:
        """Xavier uniform; Q, K and V each as a (D, D) matrix of gain 1/√2, as in fairseq."""
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif name.startswith("output_projection"):
                nn.init.xavier_uniform_(parameter)
            else:
                for part in torch.split(parameter, self.heads * self.head_dim):
                    nn.init.xavier_uniform_(part, gain=1 / math.sqrt(2))

    def attend_to_self(self, projected: Tensor, packing: Rows, *, causal: bool, kept: Tensor | None = None) -> Tensor:
        """Self-attention of packed rows → (N, D); each token sees its own row, or its past where `causal`.

        `projected` (N, 3D) is what `input_projection` made of the rows, `kept` a mask of the weights that was drawn
        before.
        """
        if self._stays_packed(projected, packing):
            query, key, value = projected.view(-1, 3, self.heads, self.head_dim).unbind(1)
            return self._attend_packed(query, key, value, packing, packing, causal=causal)
        layouts = self._layouts(projected, packing, packing)
        if layouts is not None:
            return linear(packed_attention(projected, None, *layouts, causal=causal), self.output_projection)
        query, key, value = self._heads(packing.pad(projected, blank=False), 3)
        # Padding is on the right, so a causal query never reaches it: no mask is needed there.
        mixed = self._attend(query, key, value, None if causal else packing, kept, causal=causal)
        return gathered_linear(mixed, packing.index, self.output_projection)

    def attend_to_memory(
        self, query: Tensor, packing: Rows, projected: Tensor, memory_packing: Rows, kept: Tensor | None = None
    ) -> Tensor:
        """Cross-attention to the memory of the same B rows → (N, D).

        `query` (N, D) is what `query_projection` made of the packed rows, `projected` (N', 2D) what
        `memory_projection` made of the memory; `kept` as in `attend_to_self`.
        """
        if self._stays_packed(query, packing):
            key, value = projected.view(-1, 2, self.heads, self.head_dim).unbind(1)
            queries = query.view(-1, self.heads, self.head_dim)
            return self._attend_packed(queries, key, value, packing, memory_packing, causal=False)
        layouts = self._layouts(query, packing, memory_packing)
        if layouts is not None:
            return linear(packed_attention(query, projected, *layouts, causal=False), self.output_projection)
        (queries,) = self._heads(packing.pad(query, blank=False), 1)
        key, value = self._heads(memory_packing.pad(projected, blank=False), 2)
        mixed = self._attend(queries, key, value, memory_packing, kept, causal=False)
        return gathered_linear(mixed, packing.index, self.output_projection)

    def stays_packed(self, rows: Tensor) -> bool:
        """Whether packed rows needn't be padded; dropout on the weights is keyed, and no such kernel's."""
        return not self._drops and suits_flash(rows.device, product_dtype(rows), self.head_dim)

    def _stays_packed(self, projected: Tensor, packing: Rows) -> bool:
        return packing.stays_packed if isinstance(packing, GraphRows) else self.stays_packed(projected)

    @property
    def _drops(self) -> bool:
        """Whether weights are dropped."""
        return self.training and self.dropout.p > 0

    def _attend_packed(
        self, query: Tensor, key: Tensor, value: Tensor, packing: Rows, memory: Rows, *, causal: bool
    ) -> Tensor:
        """(N, H, d) queries over (N', H, d) keys and values, each token in its own row → (N, D)."""
        ends, lengths = (packing.ends, memory.ends), (packing.length, memory.length)
        mixed = flash_attention(query, key, value, ends, lengths, causal=causal)
        return linear(mixed.flatten(1), self.output_projection)

    def memory_heads(self, memory: Tensor, packing: Packing) -> tuple[Tensor, Tensor]:
        """Keys and values of packed memory (N', D'), each (B, H, S, d), for decoding step by step."""
        key, value = self._heads(packing.pad(self.memory_projection(memory)), 2)
        return key.contiguous(), value.contiguous()

    def _layouts(self, rows: Tensor, queries: Rows, keys: Rows) -> tuple[HeadLayout, HeadLayout] | None:
        """Layouts of heads if these rows go through `packed_attention` to their keys; dropout has a way of its own."""
        if isinstance(queries, GraphRows) or isinstance(keys, GraphRows) or self._drops:
            return None
        if not torch.is_grad_enabled() or not suits_writing_out(rows, keys.length):
            return None
        return queries.head_layout(self.heads), keys.head_layout(self.heads)

    def _heads(self, padded: Tensor, parts: int) -> tuple[Tensor, ...]:
        """(B, T, parts·D) → `parts` views of (B, H, T, d)."""
        rows, length, _ = padded.shape
        # Chunks of the last dimension, whose backward is one concatenation; a 5-d permutation's would be two copies.
        return tuple(
            part.view(rows, length, self.heads, self.head_dim).transpose(1, 2) for part in padded.chunk(parts, dim=-1)
        )

    def _attend(
        self, query: Tensor, key: Tensor, value: Tensor, keys: Rows | None, kept: Tensor | None, *, causal: bool
    ) -> Tensor:
        """(B, H, T, d) queries over (B, H, S, d) keys and values, all of them or those of `keys` → (B·T, D)."""
        if self._drops or (torch.compiler.is_compiling() and suits_writing_out(query, key.shape[2])):
            mask = None if keys is None else keys.key_mask()
            mixed = self._attend_with_dropout(query, key, value, mask, kept, causal=causal)
        else:
            mask = None if keys is None else keys.key_mask(None if query.device.type == "cpu" else query.dtype)
            mixed = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=causal)
        return mixed.transpose(1, 2).reshape(query.shape[0] * query.shape[2], -1)

    def _attend_with_dropout(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, kept: Tensor | None, *, causal: bool
    ) -> Tensor:
        """The same written out: torch's fused kernel draws its dropout from the global generator, ours is keyed."""
        scores = (query * self.head_dim**-0.5) @ key.transpose(-1, -2)  # (B, H, T, S)
        if causal:
            length = query.shape[2]
            mask = torch.ones(length, length, dtype=torch.bool, device=query.device).tril()
        if mask is not None:
            scores = scores.masked_fill(~mask, float("-inf"))
        weights = scores.softmax(-1)
        return (self.dropout(weights) if kept is None else self.dropout.drop(weights, kept)) @ value
