"""A Transformer without an encoder: causal self-attention alone, for language models."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from seqba.models.config import DecoderConfig
from seqba.models.embedding import Embedding
from seqba.models.layers import ResidualStream, SelfAttentionLayer
from seqba.models.unpadding import Packing


class TransformerLM(nn.Module):
    """Decoder-only Transformer: previous tokens in, logits or hidden states of the next ones out.

    Args:
        config: sizes and dropouts.
        vocabulary: V.
        pad: id of padding; rows are padded on the right.

    Raises:
        ValueError: if H doesn't divide D.

    Source: fairseq's `transformer_lm`; Vaswani et al. 2017 for the parts.
    """

    def __init__(self, config: DecoderConfig, *, vocabulary: int, pad: int = 1) -> None:
        super().__init__()
        sizes = config.decoder
        self.pad = pad
        self.max_target_positions = config.max_target_positions
        self.embedding = Embedding(config.decoder_embedding, vocabulary, pad=pad)
        self.layers = nn.ModuleList(SelfAttentionLayer(sizes, causal=True) for _ in range(config.decoder_layers))
        self.norm = nn.LayerNorm(sizes.embed_dim) if sizes.pre_norm else nn.Identity()
        self.has_own_output = not config.share_decoder_input_output_embed
        if self.has_own_output:
            self.output_projection = nn.Parameter(torch.empty(vocabulary, sizes.embed_dim))
            nn.init.normal_(self.output_projection, std=sizes.embed_dim**-0.5)

    @property
    def output_weight(self) -> nn.Parameter:
        """(V, D): the output projection, which is the embedding where they are shared."""
        weight = self.output_projection if self.has_own_output else self.embedding.tokens.weight
        return cast(nn.Parameter, weight)

    def features(self, previous: Tensor) -> Tensor:
        """The hidden state from which each next token is predicted.

        Args:
            previous: (B, T) int64, padded on the right.

        Returns:
            (N, D): rows for the positions that aren't padding, row after row.

        Raises:
            ValueError: for rows longer than the model's positions.
        """
        length = previous.shape[1]
        if length > self.max_target_positions:
            raise ValueError(f"a row has {length} tokens; the model's positions end at {self.max_target_positions}")
        packing = Packing(previous, self.pad)
        stream = ResidualStream(self.embedding(packing.pack(previous), packing.positions))
        for layer in self.layers:
            stream = layer(stream, packing)
        hidden: Tensor = self.norm(stream.normalized())
        return hidden

    def forward(self, previous: Tensor) -> Tensor:
        """(B, T) int64 → logits (B, T, V), zero where `previous` is padding."""
        logits = nn.functional.linear(self.features(previous), self.output_weight)
        return Packing(previous, self.pad).pad(logits)
