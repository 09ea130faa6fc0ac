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

from seqba.models.layers import DecoderLayer, ResidualStream, feed_forward
from seqba.models.unpadding import Packing
from seqba.nn.kernels.attention import SHORTEST_KEYS
from seqba.nn.kernels.prepacked import Product, prepacked

FIRST_CAPACITY = 16


@dataclass
class LayerCache:
    """One layer with its keys and values.

    Attributes:
        layer: with its weights in blocks: it sees few rows at a time, and many times.
        keys: (B, H, capacity, K, d) of the self-attention.
        values: likewise.
        memory_keys: (B, H, S, d) of the cross-attention; S is at least `SHORTEST_KEYS`.
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
        memory_bias: (B, 1, 1, S), -inf at padding and 0 elsewhere.
        ancestors: (B, k, t) int64: in which beam each hypothesis stood at each earlier step.
        length: t, tokens fed so far.
        beam_size: K.
    """

    layers: list[LayerCache]
    output: Product
    memory_bias: Tensor
    ancestors: Tensor
    length: int
    beam_size: int


def start_state(
    layers: Iterable[nn.Module], output: Product, memory: Tensor, packing: Packing, beam_size: int
) -> DecoderState:
    """An empty state over packed encoder output `memory` (N', D'), with the output projection (N, D) → (N, V)."""
    missing = max(0, SHORTEST_KEYS - packing.length)
    caches = []
    for layer in (cast(DecoderLayer, prepacked(layer)) for layer in layers):
        heads = layer.cross_attention.memory_heads(memory, packing)
        # Padding by nothing would copy them once more.
        memory_keys, memory_values = (
            nn.functional.pad(each, (0, 0, 0, missing)) if missing else each for each in heads
        )
        attention = layer.attention
        empty = memory.new_zeros(packing.rows, attention.heads, FIRST_CAPACITY, beam_size, attention.head_dim)
        caches.append(LayerCache(layer, empty, torch.zeros_like(empty), memory_keys, memory_values))
    ancestors = torch.zeros(packing.rows, beam_size, 0, dtype=torch.int64, device=memory.device)
    memory_bias = _bias(nn.functional.pad(packing.mask, (0, missing)), memory.dtype)[:, None, None]
    return DecoderState(caches, output, memory_bias, ancestors, 0, beam_size)


def advance(state: DecoderState, x: Tensor) -> Tensor:
    """Runs the decoder on the newest token of each hypothesis, x (B·k, D) → (B·k, D), and caches its keys."""
    rows = state.ancestors.shape[0]
    hypotheses = x.shape[0] // rows
    standing = torch.arange(state.beam_size, device=x.device)
    own_beam = standing[:hypotheses].expand(rows, hypotheses).unsqueeze(2)
    state.ancestors = torch.cat([state.ancestors[:, :hypotheses], own_beam], dim=2)
    state.length += 1
    # Column τ·K + j of row (b, i): whether hypothesis i of sentence b stood in beam j at step τ.
    is_own = (state.ancestors.unsqueeze(3) == standing).flatten(2)
    seen = max(state.length, -(-SHORTEST_KEYS // state.beam_size))  # steps; what isn't written yet is zero
    own_past = _bias(nn.functional.pad(is_own, (0, seen * state.beam_size - is_own.shape[2])), x.dtype).unsqueeze(1)
    stream = ResidualStream(x)
    for cache in state.layers:
        stream = _advance_layer(cache, state, stream, own_past)
    return stream.normalized()


def _advance_layer(cache: LayerCache, state: DecoderState, stream: ResidualStream, own_past: Tensor) -> ResidualStream:
    layer = cache.layer
    x, projected = layer.attention_residual.project_in(stream, layer.attention.input_projection)
    attended = _self_attention(cache, projected, own_past, state.length)
    stream = layer.attention_residual.add_to(x, attended)
    attention = layer.cross_attention
    x, query = layer.cross_attention_residual.project_in(stream, attention.query_projection)
    queries = query.view(cache.keys.shape[0], -1, attention.heads, attention.head_dim).transpose(1, 2)
    mixed = _attend_few(queries, cache.memory_keys, cache.memory_values, state.memory_bias)
    return feed_forward(layer, layer.cross_attention_residual.add_to(x, attention.output_projection(mixed)))


def _self_attention(cache: LayerCache, projected: Tensor, own_past: Tensor, length: int) -> Tensor:
    """One new token of each hypothesis, `projected` (B·k, 3D), over the `length` tokens of its past and itself."""
    if length > cache.keys.shape[2]:
        cache.keys = _double(cache.keys)
        cache.values = _double(cache.values)
    attention = cache.layer.attention
    split = projected.view(cache.keys.shape[0], -1, 3, attention.heads, attention.head_dim)
    query, key, value = split.permute(2, 0, 3, 1, 4).unbind(0)  # (B, H, k, d) each
    cache.keys[:, :, length - 1, : key.shape[2]] = key
    cache.values[:, :, length - 1, : key.shape[2]] = value
    keys, values = (of.flatten(2, 3)[:, :, : own_past.shape[3]] for of in (cache.keys, cache.values))
    attended: Tensor = attention.output_projection(_attend_few(query, keys, values, own_past))
    return attended


def _attend_few(query: Tensor, keys: Tensor, values: Tensor, bias: Tensor) -> Tensor:
    """Attention of few queries (B, H, k, d) to keys and values (B, H, S, d) each → (B·k, D); S ≥ `SHORTEST_KEYS`.

    Written out, because torch's fused kernel is made for many queries: with four it takes two to five times as long.
    """
    rows, heads, few, width = query.shape
    seen = bias.expand(rows, heads, few, -1).flatten(0, 1)
    scores = torch.baddbmm(
        seen, query.flatten(0, 1), keys.flatten(0, 1).transpose(1, 2), alpha=width**-0.5
    )  # (B·H, k, S)
    mixed = torch.bmm(scores.softmax(2), values.flatten(0, 1))
    return mixed.view(rows, heads, few, width).transpose(1, 2).reshape(rows * few, -1)


def _bias(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Bias of attention scores: 0 where `mask` (bool, any shape) is true, -inf elsewhere."""
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, -torch.inf)


def _double(cache: Tensor) -> Tensor:
    rows, heads, capacity, beams, width = cache.shape
    grown = cache.new_empty(rows, heads, 2 * capacity, beams, width)
    grown[:, :, :capacity] = cache
    grown[:, :, capacity:] = 0
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
