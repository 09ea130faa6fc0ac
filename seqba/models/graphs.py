"""Layers of a Transformer as graphs of torch.compile: one for each kind of layer, for batches of all shapes.

A graph draws nothing: what the dropouts of a layer keep is drawn before it, by the key, and goes in as tensors, like
the places of the rows. So neither a key nor the shape of a batch is a part of a graph, and the masks are those that the
layer would have drawn itself, bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import cast

import torch
from torch import Tensor, nn

from seqba.errors import UserError
from seqba.models.attention import Attention
from seqba.models.layers import DecoderLayer, Masks, Memory, ResidualStream, SelfAttentionLayer
from seqba.models.transformer import Transformer
from seqba.models.transformer_lm import TransformerLM
from seqba.models.unpadding import GraphRows, Packing
from seqba.nn import Dropout
from seqba.noise.context import noise_context
from seqba.noise.noise import Noise

BACKEND = "inductor"
"""Backend of torch.compile."""

WIDE_ERROR, NARROW_ERROR = 1e-3, 0.1
"""How far compiled gradients may be from uncompiled ones, of their norm: in float32, and in 16 bits.

To the latter comes twice what 16 bits themselves cost an uncompiled gradient, which grows with the layers.
"""

MOST_GRAPHS = 64
"""Graphs of a kind of layer, at most: a batch of one row has one of its own, as one without padding has."""


def compile_layers(model: nn.Module) -> None:
    """Has each Transformer layer of a model run as a compiled graph in the passes of updates.

    Layers of a kind share their graphs, each compiled when it is needed first; its operations are torch's own, which
    the compiler fuses, rather than those of `seqba.nn.kernels`. Without gradients, in evaluation and outside of updates
    layers run as they are. Neither masks nor names of weights change.
    """
    for module in model.modules():
        if isinstance(module, SelfAttentionLayer):
            module.compiled = _run_self_attention
        elif isinstance(module, DecoderLayer):
            module.compiled = _run_decoder


def check_compiled(model: nn.Module, precision: torch.dtype | None) -> None:
    """Compares the gradient of compiled layers with that of the same layers as they are, in float32, on a few rows.

    A compiler's mistake shows itself nowhere else: with a wrong gradient a model trains all the same, only worse. The
    graphs are kept for the run. Weights whose gradient isn't finite are not checked.

    Args:
        model: a Transformer, with an encoder or without, whose layers are compiled: in training mode, on its device.
        precision: dtype of autocast; None for float32.

    Raises:
        UserError: for a machine that can't compile (a CPU needs a C++ compiler, a GPU Triton), and for a gradient that
            differs.
    """
    device = next(model.parameters()).device.type
    expected = _uncompiled_gradient(model, None)
    if not math.isfinite(sum(map(_square, expected))):
        return  # of weights that aren't numbers: it isn't the compiler that is wrong, and the training tells of them
    rounding = 0.0 if precision is None else _distance(_uncompiled_gradient(model, precision), expected)
    try:
        found = _gradient(model, precision)
    except Exception as error:  # the compiler's errors have no base but this
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise UserError(f"--compile: torch can't compile for this machine's {device}: {reason}") from error
    difference = _distance(found, expected)
    if not difference < (WIDE_ERROR if precision is None else NARROW_ERROR + 2 * rounding):
        raise UserError(
            f"--compile: torch {torch.__version__}'s compiler gets gradients wrong on this machine's {device}, by "
            f"{difference:.2g} of their norm: leave it out"
        )


def _distance(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """Distance of two gradients, as a share of the norm of the second."""
    difference = sum(_square(a - b) for a, b in zip(found, expected, strict=True))
    return math.sqrt(difference / sum(map(_square, expected)))


def _square(tensor: Tensor) -> float:
    """The squared norm."""
    return float(torch.linalg.vector_norm(tensor, dtype=torch.float64).square())


def _uncompiled_gradient(model: nn.Module, precision: torch.dtype | None) -> Sequence[Tensor]:
    """`_gradient` of layers as they are."""
    layers = [module for module in model.modules() if isinstance(module, (SelfAttentionLayer, DecoderLayer))]
    compiled = [layer.compiled for layer in layers]
    try:
        for layer in layers:
            layer.compiled = None
        return _gradient(model, precision)
    finally:
        for layer, run in zip(layers, compiled, strict=True):
            layer.compiled = run


def _gradient(model: nn.Module, precision: torch.dtype | None) -> Sequence[Tensor]:
    """The gradient by each parameter, of a weighted sum of the model's output for two copies of three rows."""
    model = cast("Transformer | TransformerLM", model)
    device, first = model.output_weight.device, model.pad + 1
    vocabulary = min(module.num_embeddings for module in model.modules() if isinstance(module, nn.Embedding))
    words = first + torch.arange(12).view(3, 4) % (vocabulary - first)
    words = words.masked_fill(torch.arange(4) >= torch.tensor([[4], [3], [2]]), model.pad).repeat(2, 1).to(device)
    target = words[:, : model.max_target_positions]
    inputs = (words[:, : model.max_source_positions], target) if isinstance(model, Transformer) else (target,)
    noise = Noise(0, 0, 0, (0, 1), {id(module): name for name, module in model.named_modules()})
    with noise_context(noise), torch.autocast(device.type, precision, enabled=precision is not None):
        hidden = model.features(*inputs).double()
        weights = torch.arange(hidden.numel(), device=device).cos().view_as(hidden)
        return torch.autograd.grad((hidden * weights).sum(), list(model.parameters()), materialize_grads=True)


def _run_self_attention(
    layer: SelfAttentionLayer, x: Tensor, norm: nn.LayerNorm | None, packing: Packing
) -> ResidualStream:
    masks = _draw(layer, x, packing)
    x = ResidualStream(x, norm).normalized()
    return ResidualStream(_compiled(_self_attention)(layer, x, _places(layer.attention, x, packing), masks))


def _run_decoder(
    layer: DecoderLayer, x: Tensor, norm: nn.LayerNorm | None, packing: Packing, rows: Tensor, memory: Memory
) -> ResidualStream:
    read = cast(Packing, memory.packing)
    scores = packing.rows, layer.cross_attention.heads, packing.length, read.length
    masks = _draw(layer, x, packing)._replace(
        cross_attention=layer.cross_attention.dropout.draw(scores, x.device),
        cross_attention_residual=_draw_rows(layer.cross_attention_residual.dropout, x, packing),
    )
    x = ResidualStream(x, norm).normalized()
    memory = Memory(rows, _places(layer.cross_attention, x, read), memory.is_projected)
    return ResidualStream(_compiled(_decoder)(layer, x, _places(layer.attention, x, packing), memory, masks))


def _self_attention(layer: SelfAttentionLayer, x: Tensor, places: GraphRows, masks: Masks) -> Tensor:
    """(N, D) → (N, D), normalised, so that graphs are the same whatever norm is due before a layer."""
    return layer.compute(x, None, places, masks).normalized()


def _decoder(layer: DecoderLayer, x: Tensor, places: GraphRows, memory: Memory, masks: Masks) -> Tensor:
    return layer.compute(x, None, places, memory.rows, memory, masks).normalized()


@cache
def _compiled(layer: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The compiled function: whole (a break would be an error), and of symbolic sizes from the first batch on."""
    config = torch._dynamo.config
    limit = "recompile_limit" if hasattr(config, "recompile_limit") else "cache_size_limit"  # as torch 2.6 calls it
    setattr(config, limit, max(getattr(config, limit), MOST_GRAPHS))
    torch._dynamo.config.specialize_float = True  # probabilities stay what they are
    # Sizes that are equal in one batch (rows and tokens of a row, say) aren't so in the next.
    torch.fx.experimental._config.use_duck_shape = False
    return torch.compile(layer, backend=BACKEND, fullgraph=True, dynamic=True)


def _places(attention: Attention, x: Tensor, packing: Packing) -> GraphRows:
    return packing.for_graph(stays_packed=attention.stays_packed(x))


def _draw(layer: SelfAttentionLayer | DecoderLayer, x: Tensor, packing: Packing) -> Masks:
    """Draws what both kinds of layers draw on their way."""
    scores = packing.rows, layer.attention.heads, packing.length, packing.length
    hidden = len(x), layer.feed_forward.expand.out_features
    return Masks(
        attention=layer.attention.dropout.draw(scores, x.device),
        attention_residual=_draw_rows(layer.attention_residual.dropout, x, packing),
        feed_forward=layer.feed_forward.dropout.draw(hidden, x.device, packing.copy_rows),
        feed_forward_residual=_draw_rows(layer.feed_forward_residual.dropout, x, packing),
    )


def _draw_rows(dropout: Dropout, x: Tensor, packing: Packing) -> Tensor | None:
    return dropout.draw(x.shape, x.device, packing.copy_rows)
