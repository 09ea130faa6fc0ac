"""A Transformer without an encoder: causal self-attention alone, for language models."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn

from seqba.models.config import DecoderConfig
from seqba.models.embedding import Embedding
from seqba.models.forks import layer_of
from seqba.models.layers import ResidualStream, SelfAttentionLayer
from seqba.models.unpadding import Packing
from seqba.nn.kernels.products import product_dtype
from seqba.noise.fork import copies_at_fork, fork, per_copy


class TransformerLM(nn.Module):
    """Decoder-only Transformer: previous tokens in, logits or hidden states of the next ones out.

    Args:
        config: sizes and dropouts.
        vocabulary: V.
        pad: id of padding; rows are padded on the right.

    Attributes:
        layers_below: layers below the place where copies begin, in an update that forks (`seqba.fork`); None for copies
            from the beginning.

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
        self.layers_below: int | None = None
        self.has_own_output = not config.share_decoder_input_output_embed
        if self.has_own_output:
            self.output_projection = nn.Parameter(torch.empty(vocabulary, sizes.embed_dim))
            nn.init.normal_(self.output_projection, std=sizes.embed_dim**-0.5)

    def fork_at(self, place: str | None) -> None:
        """Has copies begin at `layer-N`, before layer N from 1 on; or from the beginning, at None.

        Raises:
            ValueError: for a place that isn't there.
        """
        self.layers_below = None if place is None else layer_of(place, len(self.layers)) - 1

    @property
    def output_weight(self) -> nn.Parameter:
        """(V, D): the output projection, which is the embedding where they are shared."""
        weight = self.output_projection if self.has_own_output else self.embedding.tokens.weight
        return cast(nn.Parameter, weight)

    def features(self, previous: Tensor, tokens: int | None = None) -> Tensor:
        """The hidden state from which each next token is predicted.

        Args:
            previous: (B, T) int64, padded on the right.
            tokens: how many aren't padding, where the host knows.

        Returns:
            (N, D): rows for the positions that aren't padding, row after row; in an update that forks those of each
            copy in the pass, copy-major.

        Raises:
            ValueError: for rows longer than the model's positions.
        """
        length = previous.shape[1]
        if length > self.max_target_positions:
            raise ValueError(f"a row has {length} tokens; the model's positions end at {self.max_target_positions}")
        dtype = product_dtype(self.output_weight)
        packing = Packing(previous, self.pad, tokens, dtype)
        if self.layers_below is None:
            stream = self._read(self._embed(previous, packing), packing, self.layers)
        else:
            x = fork(self._below, previous, packing, self.layers_below)
            above = None if tokens is None else tokens * copies_at_fork()
            packing = Packing(per_copy(previous), self.pad, above, dtype)
            stream = self._read(ResidualStream(x), packing, self.layers[self.layers_below :])
        return packing.without_spare(self.norm(stream.normalized()))

    def _below(self, previous: Tensor, packing: Packing, layers: int) -> Tensor:
        """(N, D), what copies share: the rows that so many layers made."""
        return self._read(self._embed(previous, packing), packing, self.layers[:layers]).normalized()

    def _embed(self, previous: Tensor, packing: Packing) -> ResidualStream:
        return ResidualStream(self.embedding(packing.pack(previous), packing.positions, packing.copy_rows))

    def _read(self, stream: ResidualStream, packing: Packing, layers: Iterable[nn.Module]) -> ResidualStream:
        for layer in layers:
            stream = layer(stream, packing)
        return stream

    def forward(self, previous: Tensor) -> Tensor:
        """(B, T) int64 → logits (B, T, V), zero where `previous` is padding."""
        logits = nn.functional.linear(self.features(previous), self.output_weight)
        return Packing(previous, self.pad).pad(logits)
