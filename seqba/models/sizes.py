"""Sizes and choices of a model's parts, as plain values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Activation = Literal["relu", "gelu", "silu"]
"""Function of the feed-forward sublayer."""

Sinusoids = Literal["tensor2tensor", "paper"]
"""Whose rates the sinusoids of positions have."""

Fan = Literal["fan-out", "fan-in"]
"""What the variance of a convolution's initial weights goes by."""


@dataclass(frozen=True, kw_only=True)
class EmbeddingSizes:
    """Sizes and choices of an embedding, but for its vocabulary.

    Attributes:
        embed_dim: D.
        max_positions: longest row.
        first_position: t of a row's first token.
        sinusoids: whose rates, see `sinusoids`.
        learned_positions: a trained vector for each place; sinusoids otherwise.
        scaled: token embeddings are multiplied by √D.
        normalised: layer normalisation of the sum.
        dropout: on what comes out.
    """

    embed_dim: int
    max_positions: int
    first_position: int
    sinusoids: Sinusoids
    learned_positions: bool
    scaled: bool
    normalised: bool
    dropout: float


@dataclass(frozen=True, kw_only=True)
class LayerSizes:
    """Sizes and dropouts of a layer, the same for all layers of an encoder or a decoder.

    Attributes:
        embed_dim: D.
        ffn_dim: inner width of the feed-forward sublayer.
        heads: H.
        pre_norm: normalise what a sublayer reads; otherwise post-norm, the sum that it is added to.
        activation: of the feed-forward sublayer.
        dropout: on what a sublayer adds.
        attention_dropout: on attention weights.
        activation_dropout: after the activation.
    """

    embed_dim: int
    ffn_dim: int
    heads: int
    pre_norm: bool
    activation: Activation
    dropout: float
    attention_dropout: float
    activation_dropout: float
