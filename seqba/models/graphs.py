"""Layers of a Transformer as graphs of torch.compile: one for each kind of layer, for batches of all shapes.

A graph draws nothing: what the dropouts of a layer keep is drawn before it, by the key, and goes in as tensors, like
the places of the rows. So neither a key nor the shape of a batch is a part of a graph, and the masks are those that the
layer would have drawn itself, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from seqba.models.attention import Attention
from seqba.models.layers import DecoderLayer, Masks, Memory, ResidualStream, SelfAttentionLayer
from seqba.models.unpadding import GraphRows, Packing

BACKEND = "inductor"
"""Backend of torch.compile."""

MOST_GRAPHS = 64
"""Graphs of a kind of layer, at most; torch's own limit of 8 is soon reached by rows that are or aren't padded."""


def compile_layers(model: nn.Module) -> None:
    """Has each Transformer layer of a model run as a compiled graph in the passes of updates.

    Layers of a kind share their graphs; a graph is compiled when it is needed first. Without gradients, in evaluation
    and outside of updates layers run as they are. Neither masks nor names of weights change.

    A graph is made of torch's own operations, which the compiler fuses, in the place of `seqba.nn.kernels`.
    """
    for module in model.modules():
        if isinstance(module, SelfAttentionLayer):
            module.compiled = _run_self_attention
        elif isinstance(module, DecoderLayer):
            module.compiled = _run_decoder


def _run_self_attention(
    layer: SelfAttentionLayer, x: Tensor, norm: nn.LayerNorm | None, packing: Packing
) -> ResidualStream:
    masks = _draw(layer, x, packing)
    x = ResidualStream(x, norm).normalized()
    return ResidualStream(_graph(_self_attention)(layer, x, _rows(layer.attention, x, packing), masks))


def _run_decoder(
    layer: DecoderLayer, x: Tensor, norm: nn.LayerNorm | None, packing: Packing, rows: Tensor, memory: Memory
) -> ResidualStream:
    if not isinstance(memory.packing, Packing):
        raise TypeError("the rows of a memory are packed by a Packing")
    masks = _draw(layer, x, packing, memory.packing)
    x = ResidualStream(x, norm).normalized()
    places = _rows(layer.attention, x, packing), _rows(layer.attention, x, memory.packing)
    return ResidualStream(_graph(_decoder)(layer, x, rows, *places, memory.is_projected, masks))


def _self_attention(layer: SelfAttentionLayer, x: Tensor, places: GraphRows, masks: Masks) -> Tensor:
    return layer.compute(x, None, places, masks).normalized()


def _decoder(
    layer: DecoderLayer,
    x: Tensor,
    rows: Tensor,
    places: GraphRows,
    memory_places: GraphRows,
    is_projected: bool,
    masks: Masks,
) -> Tensor:
    return layer.compute(x, None, places, rows, Memory(rows, memory_places, is_projected), masks).normalized()


@cache
def _graph(layer: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The compiled function: whole (a break would be an error), and of symbolic sizes from the first batch on."""
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, MOST_GRAPHS)
    return torch.compile(layer, backend=BACKEND, fullgraph=True, dynamic=True)


def _rows(attention: Attention, x: Tensor, packing: Packing) -> GraphRows:
    return packing.for_graph(with_ends=attention.stays_packed(x))


def _draw(layer: SelfAttentionLayer | DecoderLayer, x: Tensor, packing: Packing, memory: Packing | None = None) -> Masks:
    """Draws what the layer would draw on the way: each dropout draws once."""
    (count, width), device, rows = x.shape, x.device, packing.copy_rows
    scores = packing.rows, layer.attention.heads, packing.length
    cross = isinstance(layer, DecoderLayer) and memory is not None
    return Masks(
        attention=layer.attention.dropout.draw((*scores, packing.length), device),
        attention_residual=layer.attention_residual.dropout.draw((count, width), device, rows),
        cross_attention=layer.cross_attention.dropout.draw((*scores, memory.length), device) if cross else None,
        cross_attention_residual=layer.cross_attention_residual.dropout.draw((count, width), device, rows) if cross else None,
        feed_forward=layer.feed_forward.dropout.draw((count, layer.feed_forward.expand.out_features), device, rows),
        feed_forward_residual=layer.feed_forward_residual.dropout.draw((count, width), device, rows),
    )
