"""fairseq's names of a Transformer's weights, and seqba's."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from seqba.models.sizes import Activation

PAD = 1
"""fairseq's id of padding, after which its positions begin."""

ACTIVATIONS: dict[str, Activation] = {"swish": "silu", "relu": "relu", "gelu": "gelu"}
"""fairseq's names of the activations that there are here."""

SIDES = {
    "encoder_layers": "encoder.layers",
    "decoder_layers": "decoder.layers",
    "layers": "decoder.layers",
    "source_embedding": "encoder",
    "target_embedding": "decoder",
    "embedding": "decoder",
    "encoder_norm": "encoder.layer_norm",
    "decoder_norm": "decoder.layer_norm",
    "norm": "decoder.layer_norm",
    "output_projection": "decoder.output_projection.weight",
}
"""fairseq's name of what is at the top of a model here."""

PARTS = {
    "attention.input_projection": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "attention.output_projection": ("self_attn.out_proj",),
    "attention_residual.norm": ("self_attn_layer_norm",),
    "cross_attention.query_projection": ("encoder_attn.q_proj",),
    "cross_attention.memory_projection": ("encoder_attn.k_proj", "encoder_attn.v_proj"),
    "cross_attention.output_projection": ("encoder_attn.out_proj",),
    "cross_attention_residual.norm": ("encoder_attn_layer_norm",),
    "feed_forward.expand": ("fc1",),
    "feed_forward.contract": ("fc2",),
    "feed_forward_residual.norm": ("final_layer_norm",),
    "tokens": ("embed_tokens",),
    "positions": ("embed_positions.weight",),
    "norm": ("layernorm_embedding",),
}
"""fairseq's names of the parts of a layer or of an embedding; several are stacked here, in this order."""

OLDER_NAMES = (
    (re.compile(r"^(encoder\.layers\.\d+)\.layer_norms\.0\."), r"\1.self_attn_layer_norm."),
    (re.compile(r"^(encoder\.layers\.\d+)\.layer_norms\.1\."), r"\1.final_layer_norm."),
    (re.compile(r"^(decoder\.layers\.\d+)\.layer_norms\.0\."), r"\1.self_attn_layer_norm."),
    (re.compile(r"^(decoder\.layers\.\d+)\.layer_norms\.1\."), r"\1.encoder_attn_layer_norm."),
    (re.compile(r"^(decoder\.layers\.\d+)\.layer_norms\.2\."), r"\1.final_layer_norm."),
    (re.compile(r"^decoder\.embed_out$"), "decoder.output_projection.weight"),
)
"""What older fairseq called a weight, and what it calls it since."""

NO_WEIGHTS = re.compile(
    r"(^|\.)(version|_float_tensor|embed_positions\.weights)$"
    r"|^encoder\.layers\.\d+\.(in_proj|out_proj|fc1|fc2)_(weight|bias)$"
)
"""What fairseq keeps among the weights and isn't one: numbers of versions, tables of sinusoids, and the room that its
version 0.12 sets aside in each layer of the encoder for copies of the layer's weights."""


def their_names(name: str) -> tuple[str, ...]:
    """Fairseq's names of a weight: several where fairseq has several that are stacked here."""
    top, _, rest = name.partition(".")
    number = re.match(r"\d+\.", rest)
    prefix = SIDES[top] + (f".{number[0][:-1]}" if number else "")
    rest = rest[number.end() :] if number else rest
    for part, theirs in PARTS.items():
        if rest == part or rest.startswith(f"{part}."):
            return tuple(f"{prefix}.{their}{rest.removeprefix(part)}" for their in theirs)
    return (f"{prefix}.{rest}" if rest else prefix,)


def count_layers(side: str, weights: Iterable[str]) -> int:
    """Number of layers of a side ("encoder", "decoder") among the names of weights."""
    numbers = {match[1] for name in weights if (match := re.match(rf"{re.escape(side)}\.layers\.(\d+)\.", name))}
    return len(numbers)


def current_names(weights: Mapping[str, Any]) -> dict[str, Tensor]:
    """Weights under the names of fairseq's current version, the three projections of attention apart."""
    current: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        if NO_WEIGHTS.search(name):
            continue
        for older, newer in OLDER_NAMES:
            name = older.sub(newer, name)
        head, stacked, kind = name.partition("in_proj_")
        names = [f"{head}{part}_proj.{kind}" for part in "qkv"] if stacked else [name]
        current.update(zip(names, torch.chunk(tensor, len(names)), strict=True))
    return current
