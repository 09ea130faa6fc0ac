"""The Transformer of Vaswani et al. 2017: encoder, decoder, and both together."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn

from seqba.models.config import TransformerConfig
from seqba.models.incremental import DecoderState, advance, reorder_state, start_state
from seqba.models.layers import DecoderLayer, SelfAttentionLayer, Stream
from seqba.models.packing import Packing
from seqba.nn import Dropout


class Embedding(nn.Module):
    """Token embedding · √D + sinusoidal position, then dropout.

        P[t, i] = sin(t / 10000^(i/(D/2−1))) for i < D/2, and the cosines after them

    Token n of a row, from 0, stands at t = `first_position` + n.

    Args:
        vocabulary: V.
        embed_dim: D.
        pad: id of padding; its embedding is zero and stays so.
        max_positions: longest row.
        first_position: t of a row's first token.
        dropout: on the sum.

    Source: Vaswani et al. 2017, sections 3.4 and 3.5, halves laid out as in tensor2tensor and fairseq.
    """

    positions: Tensor

    def __init__(
        self, vocabulary: int, embed_dim: int, *, pad: int, max_positions: int, first_position: int, dropout: float
    ) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, embed_dim, padding_idx=pad)
        nn.init.normal_(self.tokens.weight, std=embed_dim**-0.5)
        with torch.no_grad():
            self.tokens.weight[pad].zero_()
        self.dropout = Dropout(dropout)
        self.scale = math.sqrt(embed_dim)
        self.register_buffer("positions", sinusoids(max_positions, embed_dim, first_position), persistent=False)

    def forward(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Tokens (N,) int64, their places in their rows (N,) int64, from 0 → (N, D)."""
        embedded: Tensor = self.dropout(self.tokens(tokens) * self.scale + self.positions[positions])
        return embedded


def sinusoids(length: int, embed_dim: int, first: int) -> Tensor:
    """The table of positions t = first, first + 1, …: (length, D) float32; see `Embedding` for the formula."""
    half = embed_dim // 2
    rates = torch.exp(torch.arange(half) * -(math.log(10000.0) / max(half - 1, 1)))
    angles = torch.arange(first, first + length).unsqueeze(1) * rates
    table = torch.cat([angles.sin(), angles.cos()], dim=1)
    return nn.functional.pad(table, (0, embed_dim - 2 * half))


class Transformer(nn.Module):
    """Encoder-decoder Transformer, tokens in, logits or hidden states out.

    Args:
        config: sizes and dropouts.
        source_vocabulary: V of the source.
        target_vocabulary: V of the target.
        pad: id of padding; rows are padded on the right.

    Raises:
        ValueError: for sharing between vocabularies or widths that differ.
    """

    def __init__(
        self, config: TransformerConfig, *, source_vocabulary: int, target_vocabulary: int, pad: int = 1
    ) -> None:
        super().__init__()
        encoder, decoder = config.encoder, config.decoder
        self.pad = pad
        self.max_source_positions = config.max_source_positions
        self.max_target_positions = config.max_target_positions
        self.source_embedding = Embedding(
            source_vocabulary,
            encoder.embed_dim,
            pad=pad,
            max_positions=config.max_source_positions,
            first_position=config.first_position,
            dropout=config.dropout,
        )
        self.target_embedding = Embedding(
            target_vocabulary,
            decoder.embed_dim,
            pad=pad,
            max_positions=config.max_target_positions,
            first_position=config.first_position,
            dropout=config.dropout,
        )
        self.encoder_layers = nn.ModuleList(SelfAttentionLayer(encoder) for _ in range(config.encoder_layers))
        self.decoder_layers = nn.ModuleList(
            DecoderLayer(decoder, memory_dim=encoder.embed_dim) for _ in range(config.decoder_layers)
        )
        self.encoder_norm = nn.LayerNorm(encoder.embed_dim) if encoder.pre_norm else nn.Identity()
        self.decoder_norm = nn.LayerNorm(decoder.embed_dim) if decoder.pre_norm else nn.Identity()
        self._share(config.share_all_embeddings, config.share_decoder_input_output_embed)

    def _share(self, share_all: bool, share_output: bool) -> None:
        source, target = self.source_embedding.tokens, self.target_embedding.tokens
        if share_all:
            if source.weight.shape != target.weight.shape:
                raise ValueError(
                    "sharing all embeddings needs one vocabulary and one width, but source and target have "
                    f"{tuple(source.weight.shape)} and {tuple(target.weight.shape)}"
                )
            source.weight = target.weight
        if not share_all and not share_output:
            self.output_projection = nn.Parameter(torch.empty_like(target.weight))
            nn.init.normal_(self.output_projection, std=target.weight.shape[1] ** -0.5)
        self.has_own_output = not share_all and not share_output

    @property
    def output_weight(self) -> nn.Parameter:
        """(V, D): the output projection, which is the target embedding where they are shared."""
        weight = self.output_projection if self.has_own_output else self.target_embedding.tokens.weight
        return cast(nn.Parameter, weight)

    def encode(self, source: Tensor) -> tuple[Tensor, Packing]:
        """Source (B, L) int64 → the encoder's packed output (N, D) and where its rows belong."""
        packing = self._packing(source, self.max_source_positions, "source")
        stream = Stream(self.source_embedding(packing.pack(source), packing.positions))
        for layer in self.encoder_layers:
            stream = layer(stream, packing)
        return self.encoder_norm(stream.settle()), packing

    def features(self, source: Tensor, previous: Tensor) -> Tensor:
        """The decoder's output at every target token.

        Args:
            source: (B, L) int64, padded on the right.
            previous: (B, T) int64, the target shifted right: [eos, y₁, …, yₙ].

        Returns:
            (N, D): rows for the positions of `previous` that aren't padding, row after row.

        Raises:
            ValueError: for rows longer than the model's positions.
        """
        memory, memory_packing = self.encode(source)
        packing = self._packing(previous, self.max_target_positions, "target")
        stream = Stream(self.target_embedding(packing.pack(previous), packing.positions))
        for layer in self.decoder_layers:
            stream = layer(stream, packing, memory, memory_packing)
        hidden: Tensor = self.decoder_norm(stream.settle())
        return hidden

    def forward(self, source: Tensor, previous: Tensor) -> Tensor:
        """(B, L) and (B, T) int64 → logits (B, T, V), zero where `previous` is padding."""
        logits = nn.functional.linear(self.features(source, previous), self.output_weight)
        return Packing(previous, self.pad).pad(logits)

    @torch.no_grad()
    def begin(self, source: Tensor, beam_size: int) -> DecoderState:
        """Encodes source (B, L), with room for `beam_size` hypotheses of each sentence, for decoding step by step."""
        memory, packing = self.encode(source)
        return start_state(self.decoder_layers, self.output_weight, memory, packing, beam_size)

    @torch.no_grad()
    def step(self, state: DecoderState, tokens: Tensor) -> Tensor:
        """Feeds the last token of each hypothesis, (B, k) int64, and returns the logits of the next, (B, k, V)."""
        rows, beams = tokens.shape
        if state.length >= self.max_target_positions:
            raise ValueError(f"a hypothesis is longer than the model's {self.max_target_positions} target positions")
        positions = tokens.new_full((rows * beams,), state.length)
        x = advance(state, self.target_embedding(tokens.flatten(), positions))
        return state.output(self.decoder_norm(x)).view(rows, beams, -1)

    def reorder(self, state: DecoderState, sentences: Tensor, parents: Tensor) -> None:
        """Keeps the sentences (B',) int64; hypothesis i of kept row b goes on from number parents[b, i] of (B', k')."""
        reorder_state(state, sentences, parents)

    def _packing(self, tokens: Tensor, longest: int, side: str) -> Packing:
        if tokens.shape[1] > longest:
            raise ValueError(f"a {side} row has {tokens.shape[1]} tokens; the model's positions end at {longest}")
        return Packing(tokens, self.pad)
