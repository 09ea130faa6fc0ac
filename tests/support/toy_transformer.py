"""A small Transformer, and batches for it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from seqba.models.config import TransformerConfig
from seqba.models.transformer import Transformer

PAD, EOS = 1, 2
VOCABULARY = 23
LENGTHS = [(7, 4), (3, 6), (7, 6), (1, 1)]


def make_model(vocabulary: int = VOCABULARY, **changes: Any) -> Transformer:
    """A model with some sizes changed, in float64."""
    torch.manual_seed(4)
    sizes: dict[str, Any] = {
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_embed_dim": 16,
        "decoder_embed_dim": 16,
        "encoder_ffn_embed_dim": 24,
        "decoder_ffn_embed_dim": 24,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
        "dropout": 0.0,
    }
    config = TransformerConfig(**{**sizes, **changes})
    return Transformer(config, source_vocabulary=vocabulary, target_vocabulary=vocabulary).double()


def make_batch(lengths: list[tuple[int, int]], seed: int = 0) -> tuple[Tensor, Tensor]:
    """Padded source and previous tokens for pairs of such lengths."""
    generator = torch.Generator().manual_seed(seed)
    source = torch.full((len(lengths), max(s for s, _ in lengths)), PAD)
    previous = torch.full((len(lengths), max(t for _, t in lengths)), PAD)
    for row, (source_length, target_length) in enumerate(lengths):
        source[row, :source_length] = torch.randint(4, VOCABULARY, (source_length,), generator=generator)
        source[row, source_length - 1] = EOS
        previous[row, :target_length] = torch.randint(4, VOCABULARY, (target_length,), generator=generator)
        previous[row, 0] = EOS
    return source, previous
