"""The Transformer's encoder and decoder layers, on packed rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from seqba.models.attention import Attention
from seqba.models.sizes import Activation, LayerSizes
from seqba.models.unpadding import CopyRows, Packing, Rows
from seqba.nn import Dropout
from seqba.nn.kernels.linear import linear, norm_linear
from seqba.nn.kernels.prepacked import PackedLayer
from seqba.noise.context import current_noise

ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {"gelu": nn.functional.gelu, "silu": nn.functional.silu}
"""Functions of the feed-forward sublayer, by the names that options have for them; "relu" is part of its product."""


class FeedForward(nn.Module):
    """Feed-forward sublayer, max(0, x·W₁ + b₁)·W₂ + b₂ token by token. Source: Vaswani et al. 2017, section 3.3."""

    def __init__(self, sizes: LayerSizes) -> None:
        super().__init__()
        self.expand = nn.Linear(sizes.embed_dim, sizes.ffn_dim)
        self.contract = nn.Linear(sizes.ffn_dim, sizes.embed_dim)
        self.activation = sizes.activation
        self.dropout = Dropout(sizes.activation_dropout)
        for layer in (self.expand, self.contract):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def project_in(self, stream: ResidualStream, residual: Residual) -> tuple[Tensor, Tensor]:
        """`Residual.project_in` of `expand`: a ReLU is computed together with the product before it."""
        return residual.project_in(stream, self.expand, is_rectified=self.activation == "relu")

    def activate(self, hidden: Tensor, copy_rows: CopyRows = None, kept: Tensor | None = None) -> Tensor:
        """What `contract` reads, from what `project_in` gives: (N, F) → (N, F)."""
        active = hidden if self.activation == "relu" else ACTIVATIONS[self.activation](hidden)
        dropped: Tensor = self.dropout(active, copy_rows) if kept is None else self.dropout.drop(active, kept)
        return dropped

    def forward(self, hidden: Tensor, copy_rows: CopyRows = None, kept: Tensor | None = None) -> Tensor:
        """The rest of the sublayer after `project_in`: (N, F) → (N, D)."""
        return linear(self.activate(hidden, copy_rows, kept), self.contract)


@dataclass(frozen=True)
class ResidualStream:
    """The packed rows between two sublayers.

    Attributes:
        x: (N, D).
        norm: the post-norm that x still has to go through. It waits for the linear layer that reads x next, because
            both together keep less for the backward (`seqba.nn.kernels.linear.norm_linear`).
    """

    x: Tensor
    norm: nn.LayerNorm | None = None

    def normalized(self) -> Tensor:
        """(N, D), normalised if that is due."""
        normalized: Tensor = self.x if self.norm is None else self.norm(self.x)
        return normalized


@dataclass(frozen=True)
class Memory:
    """Keys and values that a decoder layer attends to.

    Attributes:
        rows: (N', D'), the encoder's packed output.
        packing: where its rows belong.
        is_projected: whether `rows` are this layer's keys and values of it already, (N', 2D).
    """

    rows: Tensor
    packing: Rows
    is_projected: bool = False


class Masks(NamedTuple):
    """Masks of a layer's dropouts, by the names of the layer's parts: int8, 1 where kept; None for no dropout."""

    attention: Tensor | None = None
    attention_residual: Tensor | None = None
    cross_attention: Tensor | None = None
    cross_attention_residual: Tensor | None = None
    feed_forward: Tensor | None = None
    feed_forward_residual: Tensor | None = None


NO_MASKS = Masks()
"""Nothing was drawn before: each dropout draws where it drops."""


class Residual(nn.Module):
    """Residual connection of a sublayer f: post-norm LN(x + dropout(f(x))), or pre-norm x + dropout(f(LN(x))).

    Source: Vaswani et al. 2017, section 5.4 (post); Xiong et al. 2020 (pre).
    """

    def __init__(self, sizes: LayerSizes) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(sizes.embed_dim)
        self.dropout = Dropout(sizes.dropout)
        self.pre_norm = sizes.pre_norm

    def project_in(
        self, stream: ResidualStream, layer: nn.Linear, *, is_rectified: bool = False
    ) -> tuple[Tensor, Tensor]:
        """The rows that the sublayer's output is added to (N, D), and its first linear layer of them (N, E).

        Args:
            stream: what the sublayer reads.
            layer: D → E.
            is_rectified: whether a ReLU follows the layer.
        """
        if self.pre_norm:
            return stream.x, norm_linear(stream.x, self.norm, layer, is_rectified=is_rectified)[1]
        if stream.norm is None:
            return stream.x, linear(stream.x, layer, is_rectified=is_rectified)
        return norm_linear(stream.x, stream.norm, layer, is_rectified=is_rectified)

    def add_product(self, x: Tensor, rows: Tensor, layer: nn.Module) -> ResidualStream:
        """`add_to` of a linear layer's output for rows, where nothing is learned: one kernel for laid-out weights."""
        if isinstance(layer, PackedLayer) and not self.dropout.drops:
            return ResidualStream(layer.plus(rows, x), None if self.pre_norm else self.norm)
        return self.add_to(x, layer(rows))

    def add_to(
        self, x: Tensor, output: Tensor, copy_rows: CopyRows = None, kept: Tensor | None = None
    ) -> ResidualStream:
        """The stream after the sublayer."""
        total = self.dropout.add(x, output, copy_rows) if kept is None else self.dropout.drop(output, kept, x)
        return ResidualStream(total, None if self.pre_norm else self.norm)


class SelfAttentionLayer(nn.Module):
    """Self-attention, then feed-forward: an encoder's layer, or a language model's where `causal`.

    Attributes:
        recomputes: see `recompute_layers`.
        compiled: what computes the layer in updates, see `seqba.models.graphs`; None for `compute`.
    """

    recomputes = False
    compiled: Callable[..., ResidualStream] | None = None

    def __init__(self, sizes: LayerSizes, *, causal: bool = False) -> None:
        super().__init__()
        self.causal = causal
        self.attention = Attention(sizes.embed_dim, sizes.heads, dropout=sizes.attention_dropout)
        self.attention_residual = Residual(sizes)
        self.feed_forward = FeedForward(sizes)
        self.feed_forward_residual = Residual(sizes)

    def forward(self, stream: ResidualStream, packing: Packing) -> ResidualStream:
        """Packed rows (N, D) → (N, D); each token sees its own row, or its past where the layer is causal."""
        return _run(self, stream.x, stream.norm, packing)

    def compute(self, x: Tensor, norm: nn.LayerNorm | None, packing: Rows, masks: Masks = NO_MASKS) -> ResidualStream:
        """`forward`, with the stream in its parts; `masks` were drawn before, where a compiler reads this."""
        stream = ResidualStream(x, norm)
        x, projected = self.attention_residual.project_in(stream, self.attention.input_projection)
        attended = self.attention.attend_to_self(projected, packing, causal=self.causal, kept=masks.attention)
        stream = self.attention_residual.add_to(x, attended, packing.copy_rows, masks.attention_residual)
        return feed_forward(self, stream, packing.copy_rows, masks)


class DecoderLayer(nn.Module):
    """Causal self-attention, cross-attention to the encoder's output, then feed-forward.

    Attributes:
        recomputes: see `recompute_layers`.
        compiled: what computes the layer in updates, see `seqba.models.graphs`; None for `compute`.
    """

    recomputes = False
    compiled: Callable[..., ResidualStream] | None = None

    def __init__(self, sizes: LayerSizes, *, memory_dim: int) -> None:
        super().__init__()
        dim, heads, dropout = sizes.embed_dim, sizes.heads, sizes.attention_dropout
        self.attention = Attention(dim, heads, dropout=dropout)
        self.attention_residual = Residual(sizes)
        self.cross_attention = Attention(dim, heads, memory_dim=memory_dim, dropout=dropout)
        self.cross_attention_residual = Residual(sizes)
        self.feed_forward = FeedForward(sizes)
        self.feed_forward_residual = Residual(sizes)

    def forward(self, stream: ResidualStream, packing: Packing, memory: Memory) -> ResidualStream:
        """Packed target rows (N, D) and the encoder's output → (N, D)."""
        return _run(self, stream.x, stream.norm, packing, memory.rows, memory)

    def compute(
        self,
        x: Tensor,
        norm: nn.LayerNorm | None,
        packing: Rows,
        rows: Tensor,
        memory: Memory,
        masks: Masks = NO_MASKS,
    ) -> ResidualStream:
        """`forward`, with stream and memory in their parts; `masks` were drawn before, where a compiler reads this."""
        stream = ResidualStream(x, norm)
        x, projected = self.attention_residual.project_in(stream, self.attention.input_projection)
        attended = self.attention.attend_to_self(projected, packing, causal=True, kept=masks.attention)
        stream = self.attention_residual.add_to(x, attended, packing.copy_rows, masks.attention_residual)
        x, query = self.cross_attention_residual.project_in(stream, self.cross_attention.query_projection)
        projected = rows if memory.is_projected else linear(rows, self.cross_attention.memory_projection)
        attended = self.cross_attention.attend_to_memory(
            query, packing, projected, memory.packing, masks.cross_attention
        )
        stream = self.cross_attention_residual.add_to(x, attended, packing.copy_rows, masks.cross_attention_residual)
        return feed_forward(self, stream, packing.copy_rows, masks)


def feed_forward(
    layer: SelfAttentionLayer | DecoderLayer,
    stream: ResidualStream,
    copy_rows: CopyRows = None,
    masks: Masks = NO_MASKS,
) -> ResidualStream:
    """The last sublayer of either kind of layer."""
    x, hidden = layer.feed_forward.project_in(stream, layer.feed_forward_residual)
    output = layer.feed_forward(hidden, copy_rows, masks.feed_forward)
    return layer.feed_forward_residual.add_to(x, output, copy_rows, masks.feed_forward_residual)


def recompute_layers(model: nn.Module) -> None:
    """Has each Transformer layer of a model keep its input alone, and compute the rest again in the backward.

    Masks are those of the forward, which keyed noise draws again from their keys, so that the gradient stays the same.

    Source: Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost".
    """
    for module in model.modules():
        if isinstance(module, (SelfAttentionLayer, DecoderLayer)):
            module.recomputes = True


def _run(layer: SelfAttentionLayer | DecoderLayer, *inputs: object) -> ResidualStream:
    """A layer's output; tensors stand by themselves in `inputs`, where `auto` plans see them kept."""
    compute: Callable[..., ResidualStream] = layer.compute
    if layer.compiled is not None and layer.training and torch.is_grad_enabled() and current_noise() is not None:
        compute = partial(layer.compiled, layer)
    if not layer.recomputes or not torch.is_grad_enabled():
        return compute(*inputs)
    # The state of torch's generator, which is read here and set again, tells keyed noise what is computed again.
    return cast(ResidualStream, checkpoint(compute, *inputs, use_reentrant=False))
