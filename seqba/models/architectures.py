"""Named sizes of the models that have families; nothing here needs torch."""

from __future__ import annotations

from dataclasses import replace

from seqba.models.config import AWDLSTMConfig, DecoderConfig, ImageClassifierConfig, TransformerConfig
from seqba.models.image_networks import NETWORK_OPTIONS, NETWORKS


def _transformer(layers: int, embed_dim: int, ffn_embed_dim: int, heads: int, dropout: float) -> TransformerConfig:
    return TransformerConfig(
        encoder_layers=layers,
        encoder_embed_dim=embed_dim,
        encoder_ffn_embed_dim=ffn_embed_dim,
        encoder_attention_heads=heads,
        decoder_layers=layers,
        decoder_embed_dim=embed_dim,
        decoder_ffn_embed_dim=ffn_embed_dim,
        decoder_attention_heads=heads,
        dropout=dropout,
    )


_VASWANI_BIG = _transformer(6, 1024, 4096, 16, dropout=0.3)


TRANSFORMERS = {
    "transformer_wmt_en_de": _transformer(6, 512, 2048, 8, dropout=0.1),
    "transformer_wmt_en_de_big": replace(_VASWANI_BIG, attention_dropout=0.1),
    "transformer_vaswani_wmt_en_de_big": _VASWANI_BIG,
    "transformer_vaswani_wmt_en_fr_big": replace(_VASWANI_BIG, dropout=0.1),
    "transformer_wmt_en_de_big_t2t": replace(
        _VASWANI_BIG,
        encoder_normalize_before=True,
        decoder_normalize_before=True,
        attention_dropout=0.1,
        activation_dropout=0.1,
    ),
    "transformer_iwslt_de_en": _transformer(6, 512, 1024, 4, dropout=0.1),
    "transformer_tiny": _transformer(2, 64, 64, 2, dropout=0.1),
    "transformer": _transformer(6, 512, 2048, 8, dropout=0.1),
}
"""Vaswani et al. 2017, table 3 (base; big is fairseq's transformer_vaswani_wmt_en_de_big); tensor2tensor's later
defaults (…_t2t); fairseq's recipes (the others)."""


def _language_model(layers: int, embed_dim: int, ffn_embed_dim: int, heads: int) -> DecoderConfig:
    """Pre-norm, as every language model of fairseq's, whose training isn't stable without."""
    return DecoderConfig(
        decoder_layers=layers,
        decoder_embed_dim=embed_dim,
        decoder_ffn_embed_dim=ffn_embed_dim,
        decoder_attention_heads=heads,
        decoder_normalize_before=True,
    )


def _gpt(layers: int, embed_dim: int, heads: int) -> DecoderConfig:
    """Sizes of GPT and GPT-2: GELU, dropout on attention weights, and feed-forward layers of four times the width."""
    sizes = _language_model(layers, embed_dim, 4 * embed_dim, heads)
    return replace(sizes, attention_dropout=0.1, activation_fn="gelu")


TRANSFORMER_LMS = {
    "transformer_lm": _language_model(6, 512, 2048, 8),
    "transformer_lm_big": _language_model(12, 1024, 4096, 16),
    "transformer_lm_gpt": _gpt(12, 768, 12),
    "transformer_lm_gpt2_small": _gpt(24, 1024, 16),
    "transformer_lm_gpt2_medium": _gpt(36, 1280, 20),
    "transformer_lm_gpt2_big": _gpt(48, 1600, 25),
}
"""fairseq's sizes; those of GPT and GPT-2 after Radford et al. 2018 and 2019, under fairseq's names."""


AWD_LSTMS = {"awd_lstm": AWDLSTMConfig()}
"""Merity et al. 2018 on PTB."""


IMAGE_CLASSIFIERS = {
    name: ImageClassifierConfig(**{option: getattr(network, option) for option in NETWORK_OPTIONS})
    for name, network in NETWORKS.items()
}
"""The networks of `seqba.models.image_networks`."""
