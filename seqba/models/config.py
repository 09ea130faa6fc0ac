"""Configurations of models: plain numbers with nothing left open, named as the options are."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from seqba.models.sizes import Activation, EmbeddingSizes, Fan, LayerSizes, Sinusoids


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """Sizes and dropouts of a Transformer without an encoder, or of the decoder of one that has both.

    Attributes:
        decoder_layers: number of layers.
        decoder_embed_dim: D.
        decoder_ffn_embed_dim: inner width of the feed-forward layers.
        decoder_attention_heads: H.
        decoder_normalize_before: pre-norm layers; post-norm, the paper's, otherwise.
        activation_fn: of the feed-forward layers, the encoder's too.
        dropout: residual and embedding dropout, the encoder's too.
        attention_dropout: on attention weights, the encoder's too.
        activation_dropout: after the feed-forward activation, the encoder's too.
        share_decoder_input_output_embed: the target's embedding and the output share one matrix.
        max_target_positions: longest row, in tokens.
        first_position: the number of a row's first position.
        sinusoids: whose rates the sinusoids have, the encoder's too.
        decoder_learned_pos: learned positions; sinusoids otherwise.
        no_scale_embedding: token embeddings aren't multiplied by √D, the encoder's neither.
        layernorm_embedding: normalise the embedded tokens, the encoder's too.
    """

    decoder_layers: int = 6
    decoder_embed_dim: int = 512
    decoder_ffn_embed_dim: int = 2048
    decoder_attention_heads: int = 8
    decoder_normalize_before: bool = False
    activation_fn: Activation = "relu"
    dropout: float = 0.1
    attention_dropout: float = 0.0
    activation_dropout: float = 0.0
    share_decoder_input_output_embed: bool = False
    max_target_positions: int = 1024
    first_position: int = 2
    sinusoids: Sinusoids = "tensor2tensor"
    decoder_learned_pos: bool = False
    no_scale_embedding: bool = False
    layernorm_embedding: bool = False

    @property
    def decoder_embedding(self) -> EmbeddingSizes:
        """Sizes of the decoder's embedding."""
        return EmbeddingSizes(
            embed_dim=self.decoder_embed_dim,
            max_positions=self.max_target_positions,
            first_position=self.first_position,
            sinusoids=self.sinusoids,
            learned_positions=self.decoder_learned_pos,
            scaled=not self.no_scale_embedding,
            normalised=self.layernorm_embedding,
            dropout=self.dropout,
        )

    @property
    def decoder(self) -> LayerSizes:
        """Sizes of a layer of the decoder."""
        return LayerSizes(
            embed_dim=self.decoder_embed_dim,
            ffn_dim=self.decoder_ffn_embed_dim,
            heads=self.decoder_attention_heads,
            pre_norm=self.decoder_normalize_before,
            activation=self.activation_fn,
            dropout=self.dropout,
            attention_dropout=self.attention_dropout,
            activation_dropout=self.activation_dropout,
        )


@dataclass(frozen=True, kw_only=True)
class TransformerConfig(DecoderConfig):
    """Sizes and dropouts of a Transformer; the defaults are the paper's base model.

    Attributes:
        encoder_layers: number of the encoder's layers.
        encoder_embed_dim: D of the encoder.
        encoder_ffn_embed_dim: inner width of the encoder's feed-forward layers.
        encoder_attention_heads: H of the encoder.
        encoder_normalize_before: pre-norm encoder.
        share_all_embeddings: source, target and output share one matrix (a joined dictionary).
        max_source_positions: longest source, in tokens.
        encoder_learned_pos: learned positions of the source.
        start_symbol: what the decoder reads first.
        output_bias: add a trained bias to the logits.

    Source: Vaswani et al. 2017, table 3; positions as fairseq counts them.
    """

    encoder_layers: int = 6
    encoder_embed_dim: int = 512
    encoder_ffn_embed_dim: int = 2048
    encoder_attention_heads: int = 8
    encoder_normalize_before: bool = False
    share_all_embeddings: bool = False
    max_source_positions: int = 1024
    encoder_learned_pos: bool = False
    start_symbol: Literal["eos", "pad"] = "eos"
    output_bias: bool = False

    @property
    def encoder_embedding(self) -> EmbeddingSizes:
        """Sizes of the encoder's embedding."""
        return replace(
            self.decoder_embedding,
            embed_dim=self.encoder_embed_dim,
            max_positions=self.max_source_positions,
            learned_positions=self.encoder_learned_pos,
        )

    @property
    def encoder(self) -> LayerSizes:
        """Sizes of a layer of the encoder."""
        return replace(
            self.decoder,
            embed_dim=self.encoder_embed_dim,
            ffn_dim=self.encoder_ffn_embed_dim,
            heads=self.encoder_attention_heads,
            pre_norm=self.encoder_normalize_before,
        )


@dataclass(frozen=True, kw_only=True)
class AWDLSTMConfig:
    """Sizes and dropouts of an AWD-LSTM; the defaults are those for PTB, with the dropouts of the released command.

    Attributes:
        decoder_layers: number of LSTM layers.
        decoder_embed_dim: D.
        decoder_hidden_size: H.
        dropout: see `seqba.models.awd_lstm.AWDLSTM`, as are the next four.
        input_dropout: `dropouti` in the released code.
        hidden_dropout: `dropouth` in the released code.
        embedding_dropout: `dropoute` in the released code.
        weight_dropout: `wdrop` in the released code.
        weight_noise: whether each copy draws its own masks for `embedding_dropout` and `weight_dropout`, or the copies
            of a micro-batch share them, as repeated rows do.

    Source: Merity et al. 2018.
    """

    decoder_layers: int = 3
    decoder_embed_dim: int = 400
    decoder_hidden_size: int = 1150
    dropout: float = 0.4
    input_dropout: float = 0.4
    hidden_dropout: float = 0.25
    embedding_dropout: float = 0.1
    weight_dropout: float = 0.5
    weight_noise: Literal["per-copy", "shared"] = "per-copy"


@dataclass(frozen=True, kw_only=True)
class ImageClassifierConfig:
    """Noise and initial weights of a convolutional network, and its sizes where they aren't in its name.

    Attributes:
        ghost_batch: images of a group of batch normalisation; None for the whole batch.
        dropout: None where the network has no place for it.
        conv_init: None where the network has one way alone.
        init_channels: F of searched cells; None for other networks, as the next three.
        layers: number of cells.
        drop_path: probability of drop path, at the end of its rise.
        auxiliary_weight: of the auxiliary head's loss; 0 for no such head.
    """

    ghost_batch: int | None = None
    dropout: float | None = None
    conv_init: Fan | None = None
    init_channels: int | None = None
    layers: int | None = None
    drop_path: float | None = None
    auxiliary_weight: float | None = None
