"""A Transformer without an encoder: causal self-attention alone, for language models."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from seqba.models.layers import Activation, SelfAttentionLayer, Stream
from seqba.models.packing import Packing
from seqba.models.transformer import Embedding


class TransformerLM(nn.Module):
    """Decoder-only Transformer: what came before in, logits or hidden states of what comes next out.

    Args:
        vocabulary: V.
        decoder_layers: number of layers.
        decoder_embed_dim: D.
        decoder_ffn_embed_dim: inner width of the feed-forward layers.
        decoder_attention_heads: H.
        decoder_normalize_before: pre-norm layers; post-norm otherwise.
        activation_fn: "relu" or "gelu".
        dropout: residual and embedding dropout.
        attention_dropout: on attention weights.
        activation_dropout: after the feed-forward activation.
        share_decoder_input_output_embed: input and output share one matrix.
        max_target_positions: longest row, in tokens.
        first_position: the number of a row's first position.
        pad: id of padding; rows are padded on the right.

    Raises:
        ValueError: if H doesn't divide D.

    Source: fairseq's `transformer_lm`; Vaswani et al. 2017 for the parts.
    """

    def __init__(
        self,
        *,
        vocabulary: int,
        decoder_layers: int = 6,
        decoder_embed_dim: int = 512,
        decoder_ffn_embed_dim: int = 2048,
        decoder_attention_heads: int = 8,
        decoder_normalize_before: bool = False,
        activation_fn: Activation = "relu",
        dropout: float = 0.1,
        attention_dropout: float = 0.0,
        activation_dropout: float = 0.0,
        share_decoder_input_output_embed: bool = False,
        max_target_positions: int = 1024,
        first_position: int = 2,
        pad: int = 1,
    ) -> None:
        super().__init__()
        self.pad = pad
        self.max_target_positions = max_target_positions
        self.embedding = Embedding(
            vocabulary,
            decoder_embed_dim,
            pad=pad,
            max_positions=max_target_positions,
            first_position=first_position,
            dropout=dropout,
        )
        self.layers = nn.ModuleList(
            SelfAttentionLayer(
                embed_dim=decoder_embed_dim,
                ffn_dim=decoder_ffn_embed_dim,
                heads=decoder_attention_heads,
                pre_norm=decoder_normalize_before,
                activation=activation_fn,
                dropout=dropout,
                attention_dropout=attention_dropout,
                activation_dropout=activation_dropout,
                causal=True,
            )
            for _ in range(decoder_layers)
        )
        self.norm = nn.LayerNorm(decoder_embed_dim) if decoder_normalize_before else nn.Identity()
        self.has_own_output = not share_decoder_input_output_embed
        if self.has_own_output:
            self.output_projection = nn.Parameter(torch.empty(vocabulary, decoder_embed_dim))
            nn.init.normal_(self.output_projection, std=decoder_embed_dim**-0.5)

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
        stream = Stream(self.embedding(packing.pack(previous), packing.positions))
        for layer in self.layers:
            stream = layer(stream, packing)
        hidden: Tensor = self.norm(stream.settle())
        return hidden

    def forward(self, previous: Tensor) -> Tensor:
        """(B, T) int64 → logits (B, T, V), zero where `previous` is padding."""
        logits = nn.functional.linear(self.features(previous), self.output_weight)
        return Packing(previous, self.pad).pad(logits)
