"""The named architectures, and the options that override their fields one by one."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from seqba.errors import UserError
from seqba.models.transformer import Transformer
from seqba.options import option


@dataclass(frozen=True)
class TransformerOptions:
    """A Transformer's sizes and dropouts under fairseq's names; None (or False) leaves a field to the architecture."""

    encoder_layers: int | None = option(None, "encoder layers; default: the architecture's", minimum=1)
    decoder_layers: int | None = option(None, "decoder layers; default: the architecture's", minimum=1)
    encoder_embed_dim: int | None = option(
        None, "encoder width; default: the architecture's", minimum=1, maximum=1 << 16
    )
    decoder_embed_dim: int | None = option(
        None, "decoder width; default: the architecture's", minimum=1, maximum=1 << 16
    )
    encoder_ffn_embed_dim: int | None = option(
        None, "encoder feed-forward width; default: as --arch", minimum=1, maximum=1 << 16
    )
    decoder_ffn_embed_dim: int | None = option(
        None, "decoder feed-forward width; default: as --arch", minimum=1, maximum=1 << 16
    )
    encoder_attention_heads: int | None = option(None, "encoder attention heads; default: as --arch", minimum=1)
    decoder_attention_heads: int | None = option(None, "decoder attention heads; default: as --arch", minimum=1)
    encoder_normalize_before: bool = option(False, "pre-norm encoder layers; post-norm otherwise")
    decoder_normalize_before: bool = option(False, "pre-norm decoder layers; post-norm otherwise")
    activation_fn: str | None = option(None, "feed-forward activation; default: as --arch", choices=("relu", "gelu"))
    dropout: float | None = option(None, "residual and embedding dropout; default: as --arch", minimum=0, below=1)
    attention_dropout: float | None = option(None, "dropout on attention weights", minimum=0, below=1)
    activation_dropout: float | None = option(
        None, "dropout after the feed-forward activation", minimum=0, below=1, aliases=("relu-dropout",)
    )
    share_all_embeddings: bool = option(False, "share source, target and output embeddings (joined dictionary)")
    share_decoder_input_output_embed: bool = option(False, "share target and output embeddings")
    max_source_positions: int | None = option(
        None, "longest source in tokens; default 1024", minimum=1, maximum=1 << 20
    )
    max_target_positions: int | None = option(
        None, "longest target in tokens; default 1024", minimum=1, maximum=1 << 20
    )


_BASE: dict[str, Any] = {
    "encoder_layers": 6,
    "decoder_layers": 6,
    "encoder_embed_dim": 512,
    "decoder_embed_dim": 512,
    "encoder_ffn_embed_dim": 2048,
    "decoder_ffn_embed_dim": 2048,
    "encoder_attention_heads": 8,
    "decoder_attention_heads": 8,
    "activation_fn": "relu",
    "dropout": 0.1,
    "attention_dropout": 0.0,
    "activation_dropout": 0.0,
    "max_source_positions": 1024,
    "max_target_positions": 1024,
}


def _both_sides(layers: int, embed_dim: int, ffn_embed_dim: int, heads: int) -> dict[str, Any]:
    sizes = {
        "layers": layers,
        "embed_dim": embed_dim,
        "ffn_embed_dim": ffn_embed_dim,
        "attention_heads": heads,
    }
    return {f"{side}_{name}": value for side in ("encoder", "decoder") for name, value in sizes.items()}


ARCHITECTURES: dict[str, dict[str, Any]] = {
    "transformer_wmt_en_de": _BASE,
    "transformer_wmt_en_de_big": {**_BASE, **_both_sides(6, 1024, 4096, 16), "dropout": 0.3},
    "transformer_iwslt_de_en": {**_BASE, **_both_sides(6, 512, 1024, 4)},
    "transformer_tiny": {**_BASE, **_both_sides(2, 64, 64, 2)},
    "transformer": _BASE,
}
"""Every field of each architecture. Sizes: Vaswani et al. 2017, table 3 (base, big); fairseq's recipes (the others)."""


def resolve_transformer(arch: str, options: TransformerOptions) -> TransformerOptions:
    """Fills what `options` leaves open with the architecture's values.

    A given --encoder-embed-dim also sets a decoder width that isn't given, and likewise the feed-forward width, as in
    fairseq.

    Raises:
        UserError: for an unknown architecture.
    """
    if arch not in ARCHITECTURES:
        raise UserError(f"--arch is {arch!r}; choose one of: {', '.join(ARCHITECTURES)}")
    given = {name: value for name, value in dataclasses.asdict(options).items() if value is not None}
    for name in ("embed_dim", "ffn_embed_dim"):
        if f"encoder_{name}" in given:
            given.setdefault(f"decoder_{name}", given[f"encoder_{name}"])
    return TransformerOptions(**{**ARCHITECTURES[arch], **given})


def build_transformer(options: TransformerOptions, source_vocabulary: int, target_vocabulary: int) -> Transformer:
    """Builds the model from resolved options and the sizes of both dictionaries.

    Raises:
        UserError: for sizes that don't fit together.
    """
    if options.share_all_embeddings and source_vocabulary != target_vocabulary:
        raise UserError(
            f"--share-all-embeddings needs a joined dictionary, but source and target have {source_vocabulary} and "
            f"{target_vocabulary} words: preprocess with --joined-dictionary"
        )
    if options.share_all_embeddings and options.encoder_embed_dim != options.decoder_embed_dim:
        raise UserError(
            f"--share-all-embeddings needs one width, but --encoder-embed-dim is {options.encoder_embed_dim} and "
            f"--decoder-embed-dim {options.decoder_embed_dim}"
        )
    try:
        return Transformer(
            source_vocabulary=source_vocabulary, target_vocabulary=target_vocabulary, **dataclasses.asdict(options)
        )
    except ValueError as error:
        raise UserError(str(error)) from error
    except (RuntimeError, OverflowError, MemoryError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"a model of these sizes can't be made: {reason}; lower its options") from error
