"""Incremental decoding: the state that a Transformer's decoder keeps between tokens.

Self-attention keys and values stay where they were written: each hypothesis looks at all K·t cached positions of its
sentence through a mask that says which of them are its own past. Continuing from another beam then rearranges a small
table of ancestors and moves no keys; cross-attention keys exist once for a sentence, with the K beams as queries.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from seqba.models.layers import DecoderLayer, ResidualStream
from seqba.models.unpadding import Packing
from seqba.nn.kernels.attention import SHORTEST_KEYS
from seqba.nn.kernels.prepacked import Product, prepacked
from seqba.nn.kernels.processor import processor

FIRST_CAPACITY = 16
"""Steps that caches have room for at first; they double."""

NARROW_VECTOR = 32
"""Numbers of 16 bits in a vector of 512. torch's softmax takes up to five times as long over 28 keys as over 32."""


@dataclass
class LayerCache:
    """One layer with its keys and values.

    Attributes:
        layer: with its weights in blocks: it sees few rows at a time, and many times.
        keys: (B, H, capacity, K, d) of the self-attention.
        values: likewise.
        memory_keys: (B, H, S, d) of the cross-attention; S is a vector at least.
        memory_values: likewise.
    """

    layer: DecoderLayer
    keys: Tensor
    values: Tensor
    memory_keys: Tensor
    memory_values: Tensor


@dataclass
class DecoderState:
    """The hypotheses of B sentences so far, at most K for each; k of them now.

    Attributes:
        layers: each decoder layer and its cache.
        output: the output projection, (N, D) → logits (N, V).
        memory_bias: (B, 1, S), -inf at padding and 0 elsewhere.
        ancestors: (B, k, t) int64: in which beam each hypothesis stood at each earlier step.
        length: t, tokens fed so far.
        beam_size: K.
        reads_all: whether self-attention reads all that caches have room for, see `_copies_slices`.
    """

    layers: list[LayerCache]
    output: Product
    memory_bias: Tensor
    ancestors: Tensor
    length: int
    beam_size: int
    reads_all: bool

    @property
    def capacity(self) -> int:
        """Steps that caches have room for."""
        return self.layers[0].keys.shape[2]

    @property
    def steps_read(self) -> int:
        """Steps whose keys self-attention reads; what isn't written yet is zero, and masked."""
        return self.capacity if self.reads_all else max(self.length, _steps_of(SHORTEST_KEYS, self.beam_size))


def start_state(
    layers: Iterable[nn.Module], output: Product, memory: Tensor, packing: Packing, beam_size: int
) -> DecoderState:
    """An empty state over packed encoder output `memory` (N', D'), with the output projection (N, D) → (N, V)."""
    reads_all = _copies_slices(memory)
    missing = max(0, (NARROW_VECTOR if reads_all else SHORTEST_KEYS) - packing.length)
    capacity = _steps_of(NARROW_VECTOR, beam_size) if reads_all else FIRST_CAPACITY
    caches = []
    for layer in (cast(DecoderLayer, prepacked(layer)) for layer in layers):
        heads = layer.cross_attention.memory_heads(memory, packing)
        # Padding by nothing would copy them once more.
        memory_keys, memory_values = (
            nn.functional.pad(each, (0, 0, 0, missing)) if missing else each for each in heads
        )
        attention = layer.attention
        empty = memory.new_zeros(packing.rows, attention.heads, capacity, beam_size, attention.head_dim)
        caches.append(LayerCache(layer, empty, torch.zeros_like(empty), _laid_out(memory_keys), memory_values))
    ancestors = torch.zeros(packing.rows, beam_size, 0, dtype=torch.int64, device=memory.device)
    memory_bias = _bias(nn.functional.pad(packing.mask, (0, missing)), memory.dtype).unsqueeze(1)
    return DecoderState(caches, output, memory_bias, ancestors, 0, beam_size, reads_all)


def _steps_of(keys: int, beam_size: int) -> int:
    """How many steps have so many keys, or some more."""
    return -(-keys // beam_size)


def _copies_slices(rows: Tensor) -> bool:
    """Whether products copy keys that are a slice of a longer cache: oneDNN's in bfloat16, on a CPU.

    Caches then grow a vector of keys at a time, and attention reads the whole of them: four times as fast as a slice.
    """
    return rows.device.type == "cpu" and rows.dtype == torch.bfloat16


def _laid_out(keys: Tensor) -> Tensor:
    """Keys (B, H, S, d) in the order of (B, H, d, S) where products of few queries are faster so: on Intel's."""
    if keys.device.type != "cpu" or not processor().is_intel:
        return keys
    return keys.transpose(2, 3).contiguous().transpose(2, 3)


def advance(state: DecoderState, x: Tensor) -> Tensor:
    """Runs the decoder on the newest token of each hypothesis, x (B·k, D) → (B·k, D), and caches its keys."""
    rows = state.ancestors.shape[0]
    hypotheses = x.shape[0] // rows
    standing = torch.arange(state.beam_size, device=x.device)
    own_beam = standing[:hypotheses].expand(rows, hypotheses).unsqueeze(2)
    state.ancestors = torch.cat([state.ancestors[:, :hypotheses], own_beam], dim=2)
    state.length += 1
    _make_room(state)
    # Column τ·K + j of row (b, i): whether hypothesis i of sentence b stood in beam j at step τ.
    is_own = (state.ancestors.unsqueeze(3) == standing).flatten(2)
    own_past = _bias(nn.functional.pad(is_own, (0, state.steps_read * state.beam_size - is_own.shape[2])), x.dtype)
    heads = state.layers[0].layer.attention.heads
    biases = [_per_head(bias, heads, hypotheses) for bias in (own_past, state.memory_bias)]
    stream = ResidualStream(x)
    for cache in state.layers:
        stream = _advance_layer(cache, state.length, stream, *biases)
    return stream.normalized()


def _make_room(state: DecoderState) -> None:
    """Room in the caches for the step `length`."""
    if state.length <= state.capacity:
        return
    capacity = state.capacity + (_steps_of(NARROW_VECTOR, state.beam_size) if state.reads_all else state.capacity)
    for cache in state.layers:
        cache.keys, cache.values = _grown(cache.keys, capacity), _grown(cache.values, capacity)


def _advance_layer(
    cache: LayerCache, length: int, stream: ResidualStream, own_past: Tensor, memory_bias: Tensor
) -> ResidualStream:
    layer = cache.layer
    x, projected = layer.attention_residual.project_in(stream, layer.attention.input_projection)
    mixed = _self_attention(cache, projected, own_past, length)
    stream = layer.attention_residual.add_product(x, mixed, layer.attention.output_projection)
    attention = layer.cross_attention
    x, query = layer.cross_attention_residual.project_in(stream, attention.query_projection)
    queries = query.view(cache.keys.shape[0], -1, attention.heads, attention.head_dim).transpose(1, 2)
    mixed = _attend_few(queries, cache.memory_keys, cache.memory_values, memory_bias)
    stream = layer.cross_attention_residual.add_product(x, mixed, attention.output_projection)
    sublayer = layer.feed_forward
    x, hidden = sublayer.project_in(stream, layer.feed_forward_residual)
    return layer.feed_forward_residual.add_product(x, sublayer.activate(hidden), sublayer.contract)


def _self_attention(cache: LayerCache, projected: Tensor, own_past: Tensor, length: int) -> Tensor:
    """One new token of each hypothesis, `projected` (B·k, 3D), over the `length` tokens of its past and itself."""
    attention = cache.layer.attention
    split = projected.view(cache.keys.shape[0], -1, 3, attention.heads, attention.head_dim)
    query, key, value = split.permute(2, 0, 3, 1, 4).unbind(0)  # (B, H, k, d) each
    cache.keys[:, :, length - 1, : key.shape[2]] = key
    cache.values[:, :, length - 1, : key.shape[2]] = value
    keys, values = (of.flatten(2, 3)[:, :, : own_past.shape[2]] for of in (cache.keys, cache.values))
    return _attend_few(query, keys, values, own_past)


def _attend_few(query: Tensor, keys: Tensor, values: Tensor, bias: Tensor) -> Tensor:
    """Attention of few queries (B, H, k, d) to keys and values (B, H, S, d) each, with a bias (B·H, k, S) → (B·k, D).

    Written out, because torch's fused kernel is made for many queries: with four it takes two to five times as long.
    S is a vector at least.
    """
    rows, heads, few, width = query.shape
    scores = torch.baddbmm(
        bias, query.flatten(0, 1), keys.flatten(0, 1).transpose(1, 2), alpha=width**-0.5
    )  # (B·H, k, S)
    mixed = torch.bmm(scores.softmax(2), values.flatten(0, 1))
    return mixed.view(rows, heads, few, width).transpose(1, 2).reshape(rows * few, -1)


def _bias(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Bias of attention scores: 0 where `mask` (bool, any shape) is true, -inf elsewhere."""
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, -torch.inf)


def _per_head(bias: Tensor, heads: int, few: int) -> Tensor:
    """A bias (B, k or 1, S) of all heads and k queries, (B·H, k, S): once a step, for the products of all layers."""
    rows, _, keys = bias.shape
    return bias.unsqueeze(1).expand(rows, heads, few, keys).flatten(0, 1)


def _grown(cache: Tensor, capacity: int) -> Tensor:
    rows, heads, steps, beams, width = cache.shape
    grown = cache.new_empty(rows, heads, capacity, beams, width)
    grown[:, :, :steps] = cache
    grown[:, :, steps:] = 0
    return grown


def reorder_state(state: DecoderState, sentences: Tensor, parents: Tensor) -> None:
    """Reorders the caches as `Transformer.reorder` says."""
    state.ancestors = state.ancestors[sentences.unsqueeze(1), parents]
    if sentences.numel() == state.layers[0].keys.shape[0]:
        return
    moved = (sentences != torch.arange(sentences.numel(), device=sentences.device)).nonzero().squeeze(1)
    for cache in state.layers:
        cache.keys = _keep(cache.keys, sentences, moved)
        cache.values = _keep(cache.values, sentences, moved)
        cache.memory_keys = _keep(cache.memory_keys, sentences, moved)
        cache.memory_values = _keep(cache.memory_values, sentences, moved)
    state.memory_bias = _keep(state.memory_bias, sentences, moved)


def _keep(cache: Tensor, sentences: Tensor, moved: Tensor) -> Tensor:
    """Keeps cache[sentences], in place: only rows whose place changes are copied."""
    kept = cache[: sentences.numel()]
    return kept.index_copy_(0, moved, cache[sentences[moved]])
