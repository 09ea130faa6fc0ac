"""The Transformer of Vaswani et al. 2017: encoder, decoder, and both together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from seqba.models.config import TransformerConfig
from seqba.models.embedding import Embedding
from seqba.models.forks import DECODER_LAYER, ENCODER, layer_of
from seqba.models.incremental import DecoderState, advance, reorder_state, start_state
from seqba.models.layers import DecoderLayer, Memory, ResidualStream, SelfAttentionLayer
from seqba.models.unpadding import Packing
from seqba.nn.kernels.linear import can_join, linear, linears
from seqba.nn.kernels.places import UNKNOWN, TokenCounts
from seqba.nn.kernels.prepacked import Product, prepacked_product
from seqba.nn.kernels.products import product_dtype
from seqba.noise.fork import copies_at_fork, fork, per_copy


@dataclass(frozen=True)
class DecoderFork:
    """Place of a fork in a decoder.

    Attributes:
        layers_below: decoder layers that are below it.
        is_before_decoder: whether it is at the end of the encoder, so that the target's embedding is above.
    """

    layers_below: int
    is_before_decoder: bool

    @classmethod
    def parse(cls, place: str, layers: int) -> DecoderFork:
        """The place of that name in a decoder of so many layers.

        Raises:
            ValueError: for another one.
        """
        if place == ENCODER:
            return cls(0, is_before_decoder=True)
        return cls(layer_of(place, layers, DECODER_LAYER) - 1, is_before_decoder=False)


class Transformer(nn.Module):
    """Encoder-decoder Transformer, tokens in, logits or hidden states out.

    Args:
        config: sizes and dropouts.
        source_vocabulary: V of the source.
        target_vocabulary: V of the target.
        pad: id of padding; rows are padded on the right.

    Attributes:
        fork_place: where copies begin, in an update that forks (`seqba.fork`); None for copies from the beginning.
        output_product: the output projection, (N, D) → logits (N, V), of a model for translation alone
            (`seqba.models.prepared`); None where each batch takes the weight as it is then.

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
        self.source_embedding = Embedding(config.encoder_embedding, source_vocabulary, pad=pad)
        self.target_embedding = Embedding(config.decoder_embedding, target_vocabulary, pad=pad)
        self.encoder_layers = nn.ModuleList(SelfAttentionLayer(encoder) for _ in range(config.encoder_layers))
        self.decoder_layers = nn.ModuleList(
            DecoderLayer(decoder, memory_dim=encoder.embed_dim) for _ in range(config.decoder_layers)
        )
        self.encoder_norm = nn.LayerNorm(encoder.embed_dim) if encoder.pre_norm else nn.Identity()
        self.decoder_norm = nn.LayerNorm(decoder.embed_dim) if decoder.pre_norm else nn.Identity()
        self.fork_place: DecoderFork | None = None
        self._share(config.share_all_embeddings, config.share_decoder_input_output_embed)
        self.starts_with_pad = config.start_symbol == "pad"
        self.output_bias = nn.Parameter(torch.zeros(target_vocabulary)) if config.output_bias else None
        self.output_product: Product | None = None

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

    def fork_at(self, place: str | None) -> None:
        """Has copies begin at a place: `encoder`, behind it, or `decoder-layer-N`, before layer N from 1 on; or None.

        The keys and values that the decoder's layers make of the encoder's output are below the fork too.

        Raises:
            ValueError: for a place that isn't there.
        """
        self.fork_place = None if place is None else DecoderFork.parse(place, len(self.decoder_layers))

    @property
    def output_weight(self) -> nn.Parameter:
        """(V, D): the output projection, which is the target embedding where they are shared."""
        weight = self.output_projection if self.has_own_output else self.target_embedding.tokens.weight
        return cast(nn.Parameter, weight)

    def encode(self, source: Tensor, tokens: int | None = None) -> tuple[Tensor, Packing]:
        """Source (B, L) int64 → the encoder's packed output (N, D), spare rows included, and where its rows belong.

        Args:
            source: padded on the right.
            tokens: how many aren't padding, where the host knows.
        """
        packing = self._packing(source, tokens, self.max_source_positions, "source")
        stream = ResidualStream(self.source_embedding(packing.pack(source), packing.positions, packing.copy_rows))
        for layer in self.encoder_layers:
            stream = layer(stream, packing)
        return self.encoder_norm(stream.normalized()), packing

    def features(self, source: Tensor, previous: Tensor, tokens: TokenCounts = UNKNOWN) -> Tensor:
        """The decoder's output at every target token.

        Args:
            source: (B, L) int64, padded on the right.
            previous: (B, T) int64, the target shifted right: [eos, y₁, …, yₙ]. A model that starts with padding reads
                that in the place of eos.
            tokens: how many of both aren't padding, where the host knows.

        Returns:
            (N, D): rows for the positions of `previous` that aren't padding, row after row; in an update that forks
            those of each copy in the pass, copy-major.

        Raises:
            ValueError: for rows longer than the model's positions.
        """
        if self.fork_place is not None:
            return self._forked_features(source, previous, tokens, self.fork_place)
        memories = self._memories(Memory(*self.encode(source, tokens.source)))
        packing = self._packing(previous, tokens.target, self.max_target_positions, "target")
        stream = self._embed_target(previous, packing)
        for layer, memory in zip(self.decoder_layers, memories, strict=True):
            stream = layer(stream, packing, memory)
        return packing.without_spare(self.decoder_norm(stream.normalized()))

    def _memories(self, memory: Memory) -> list[Memory]:
        """Memory of each decoder layer; keys and values of all layers are one product where `can_join`."""
        layers = cast("list[DecoderLayer]", self.decoder_layers)
        projections = [layer.cross_attention.memory_projection for layer in layers]
        if not can_join(memory.rows, projections):
            return [memory] * len(layers)
        projected = linears(memory.rows, projections)
        return [Memory(rows, memory.packing, is_projected=True) for rows in projected]

    def _forked_features(self, source: Tensor, previous: Tensor, tokens: TokenCounts, place: DecoderFork) -> Tensor:
        """`features` of the rows of copies, (k·N, D), that begin in the decoder."""
        layers = self.decoder_layers[place.layers_below :]
        x, projected = fork(self._below, source, previous, tokens, place)
        source, previous = per_copy((source, previous))
        above = tokens.times(copies_at_fork())
        packing = self._packing(previous, above.target, self.max_target_positions, "target")
        memory_packing = self._packing(source, above.source, self.max_source_positions, "source")
        stream = self._embed_target(previous, packing) if x is None else ResidualStream(x)
        for layer, rows in zip(layers, projected, strict=True):
            stream = layer(stream, packing, Memory(rows, memory_packing, is_projected=True))
        return packing.without_spare(self.decoder_norm(stream.normalized()))

    def _below(
        self, source: Tensor, previous: Tensor, tokens: TokenCounts, place: DecoderFork
    ) -> tuple[Tensor | None, list[Tensor]]:
        """Part that copies share: the decoder's rows (N, D) at the fork, and each further layer's keys and values."""
        memory = Memory(*self.encode(source, tokens.source))
        x = None
        if not place.is_before_decoder:
            packing = self._packing(previous, tokens.target, self.max_target_positions, "target")
            stream = self._embed_target(previous, packing)
            for layer in self.decoder_layers[: place.layers_below]:
                stream = layer(stream, packing, memory)
            x = stream.normalized()
        above = cast("list[DecoderLayer]", self.decoder_layers[place.layers_below :])
        return x, [linear(memory.rows, layer.cross_attention.memory_projection) for layer in above]

    def _embed_target(self, previous: Tensor, packing: Packing) -> ResidualStream:
        tokens = self._begun(packing.pack(previous), packing.positions)
        return ResidualStream(self.target_embedding(tokens, packing.positions, packing.copy_rows))

    def forward(self, source: Tensor, previous: Tensor) -> Tensor:
        """(B, L) and (B, T) int64 → logits (B, T, V), zero where `previous` is padding."""
        logits = nn.functional.linear(self.features(source, previous), self.output_weight, self.output_bias)
        return Packing(previous, self.pad).pad(logits)

    @torch.no_grad()
    def begin(self, source: Tensor, beam_size: int) -> DecoderState:
        """Encodes source (B, L), with room for `beam_size` hypotheses of each sentence, for decoding step by step."""
        memory, packing = self.encode(source)
        output = self.output_product or prepacked_product(self.output_weight, self.output_bias)
        return start_state(self.decoder_layers, output, memory, packing, beam_size)

    @torch.no_grad()
    def step(self, state: DecoderState, tokens: Tensor) -> Tensor:
        """Feeds the last token of each hypothesis, (B, k) int64, and returns the logits of the next, (B, k, V)."""
        rows, beams = tokens.shape
        if state.length >= self.max_target_positions:
            raise ValueError(f"a hypothesis is longer than the model's {self.max_target_positions} target positions")
        positions = tokens.new_full((rows * beams,), state.length)
        x = advance(state, self.target_embedding(self._begun(tokens.flatten(), positions), positions))
        return state.output(self.decoder_norm(x)).view(rows, beams, -1)

    def reorder(self, state: DecoderState, sentences: Tensor, parents: Tensor) -> None:
        """Keeps the sentences (B',) int64; hypothesis i of kept row b goes on from number parents[b, i] of (B', k')."""
        reorder_state(state, sentences, parents)

    def _begun(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Packed target tokens (N,), those at position 0 replaced by what the model starts with."""
        return tokens.masked_fill(positions == 0, self.pad) if self.starts_with_pad else tokens

    def _packing(self, tokens: Tensor, count: int | None, longest: int, side: str) -> Packing:
        if tokens.shape[1] > longest:
            raise ValueError(f"a {side} row has {tokens.shape[1]} tokens; the model's positions end at {longest}")
        return Packing(tokens, self.pad, count, product_dtype(self.output_weight))
