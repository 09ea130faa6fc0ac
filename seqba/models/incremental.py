"""Decoding step by step: what a Transformer's decoder keeps between tokens.

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

from seqba.models.attention import Attention
from seqba.models.layers import DecoderLayer, Stream, feed_forward
from seqba.models.packing import Packing

FIRST_CAPACITY = 16


@dataclass
class LayerCache:
    """One layer's keys and values.

    Attributes:
        keys: (B, H, capacity, K, d) of the self-attention.
        values: likewise.
        memory_keys: (B, H, S, d) of the cross-attention.
        memory_values: likewise.
    """

    keys: Tensor
    values: Tensor
    memory_keys: Tensor
    memory_values: Tensor


@dataclass
class DecoderState:
    """The hypotheses of B sentences × K beams so far.

    Attributes:
        layers: each decoder layer's cache.
        memory_mask: (B, 1, 1, S) bool, or None without padding.
        ancestors: (B, K, t) int64: in which beam hypothesis k stood at each earlier step.
        length: t, tokens fed so far.
        beam_size: K.
    """

    layers: list[LayerCache]
    memory_mask: Tensor | None
    ancestors: Tensor
    length: int
    beam_size: int


def start_state(layers: Iterable[nn.Module], memory: Tensor, packing: Packing, beam_size: int) -> DecoderState:
    """An empty state over packed encoder output (N', D')."""
    caches = []
    for layer in cast(Iterable[DecoderLayer], layers):
        memory_keys, memory_values = layer.cross_attention.memory_heads(memory, packing)
        attention = layer.attention
        empty = memory.new_zeros(packing.rows, attention.heads, FIRST_CAPACITY, beam_size, attention.head_dim)
        caches.append(LayerCache(empty, torch.zeros_like(empty), memory_keys, memory_values))
    ancestors = torch.zeros(packing.rows, beam_size, 0, dtype=torch.int64, device=memory.device)
    return DecoderState(caches, packing.key_mask(), ancestors, 0, beam_size)


def advance(layers: Iterable[nn.Module], state: DecoderState, x: Tensor) -> Tensor:
    """Runs the decoder on the newest token of each hypothesis, x (B·K, D) → (B·K, D), and caches its keys."""
    rows, beams, _ = state.ancestors.shape
    own_beam = torch.arange(beams, device=x.device).expand(rows, beams).unsqueeze(2)
    state.ancestors = torch.cat([state.ancestors, own_beam], dim=2)
    state.length += 1
    # own_past[b, 0, k, τ·K + j]: hypothesis k of sentence b stood in beam j at step τ.
    standing = torch.arange(beams, device=x.device)
    own_past = (state.ancestors.unsqueeze(3) == standing).view(rows, 1, beams, state.length * beams)
    stream = Stream(x)
    for layer, cache in zip(cast(Iterable[DecoderLayer], layers), state.layers, strict=True):
        stream = _advance_layer(layer, cache, state, stream, own_past)
    return stream.settle()


def _advance_layer(
    layer: DecoderLayer, cache: LayerCache, state: DecoderState, stream: Stream, own_past: Tensor
) -> Stream:
    rows, beams, length = state.ancestors.shape
    x, projected = layer.attention_residual.read(stream, layer.attention.input_projection)
    stream = layer.attention_residual.add(x, _self_attention(layer.attention, cache, projected, own_past, length))
    attention = layer.cross_attention
    x, query = layer.cross_attention_residual.read(stream, attention.query_projection)
    queries = query.view(rows, beams, attention.heads, attention.head_dim).transpose(1, 2)
    mixed = nn.functional.scaled_dot_product_attention(
        queries, cache.memory_keys, cache.memory_values, attn_mask=state.memory_mask
    )
    attended = attention.output_projection(mixed.transpose(1, 2).reshape(rows * beams, -1))
    return feed_forward(layer, layer.cross_attention_residual.add(x, attended))


def _self_attention(
    attention: Attention, cache: LayerCache, projected: Tensor, own_past: Tensor, length: int
) -> Tensor:
    """One new token of each hypothesis, `projected` (B·K, 3D), over the `length` tokens of its past and itself."""
    rows, _, capacity, beams, _ = cache.keys.shape
    if length > capacity:
        cache.keys = _double(cache.keys)
        cache.values = _double(cache.values)
    split = projected.view(rows, beams, 3, attention.heads, attention.head_dim)
    query, key, value = split.permute(2, 0, 3, 1, 4).unbind(0)  # (B, H, K, d) each
    cache.keys[:, :, length - 1] = key
    cache.values[:, :, length - 1] = value
    keys = cache.keys[:, :, :length].flatten(2, 3)  # (B, H, t·K, d): a view
    values = cache.values[:, :, :length].flatten(2, 3)
    mixed = nn.functional.scaled_dot_product_attention(query, keys, values, attn_mask=own_past)
    attended: Tensor = attention.output_projection(mixed.transpose(1, 2).reshape(rows * beams, -1))
    return attended


def _double(cache: Tensor) -> Tensor:
    rows, heads, capacity, beams, width = cache.shape
    grown = cache.new_zeros(rows, heads, 2 * capacity, beams, width)
    grown[:, :, :capacity] = cache
    return grown


def reorder_state(state: DecoderState, sentences: Tensor, parents: Tensor) -> None:
    """See `Transformer.reorder`."""
    kept, steps = sentences.numel(), state.length
    ancestors = state.ancestors[sentences] if kept < state.ancestors.shape[0] else state.ancestors
    state.ancestors = ancestors.gather(1, parents.unsqueeze(2).expand(-1, -1, steps))
    if kept == state.layers[0].keys.shape[0]:
        return
    if state.memory_mask is not None:
        state.memory_mask = state.memory_mask[sentences]
    for cache in state.layers:
        cache.keys = cache.keys[sentences]
        cache.values = cache.values[sentences]
        cache.memory_keys = cache.memory_keys[sentences]
        cache.memory_values = cache.memory_values[sentences]
