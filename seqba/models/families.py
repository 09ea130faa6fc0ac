"""The named architectures of each family of models: sizes, and what builds a model from them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from seqba.errors import UserError, quoted
from seqba.models.awd_lstm import AWDLSTM
from seqba.models.classifier import ImageClassifier
from seqba.models.image_networks import NETWORKS, build_network
from seqba.models.options import (
    AWDLSTMOptions,
    ImageClassifierOptions,
    ModelOptions,
    TransformerLMOptions,
    TransformerOptions,
)
from seqba.models.transformer import Transformer
from seqba.models.transformer_lm import TransformerLM
from seqba.options import flag_of

Family = Literal["transformer", "transformer_lm", "awd_lstm", "image_classifier"]
Model = TypeVar("Model")


@dataclass(frozen=True)
class Architecture:
    """A named model.

    Attributes:
        family: which class of models it is one of; decides which options there are.
        fields: what the options are where nobody says otherwise.
    """

    family: Family
    fields: dict[str, Any]


FIRST_POSITION = 2
"""The number of a row's first position: padding's id + 1, fairseq's habit."""

_SHARED = {
    "activation_fn": "relu",
    "dropout": 0.1,
    "attention_dropout": 0.0,
    "activation_dropout": 0.0,
    "first_position": FIRST_POSITION,
}


def _side(side: str, layers: int, embed_dim: int, ffn_embed_dim: int, heads: int) -> dict[str, Any]:
    sizes = {"layers": layers, "embed_dim": embed_dim, "ffn_embed_dim": ffn_embed_dim, "attention_heads": heads}
    return {f"{side}_{name}": value for name, value in sizes.items()}


def _transformer(layers: int, embed_dim: int, ffn_embed_dim: int, heads: int, dropout: float = 0.1) -> Architecture:
    sizes = (layers, embed_dim, ffn_embed_dim, heads)
    positions = {"max_source_positions": 1024, "max_target_positions": 1024}
    fields = {**_side("encoder", *sizes), **_side("decoder", *sizes), **_SHARED, **positions, "dropout": dropout}
    return Architecture("transformer", fields)


ARCHITECTURES: dict[str, Architecture] = {
    "transformer_wmt_en_de": _transformer(6, 512, 2048, 8),
    "transformer_wmt_en_de_big": _transformer(6, 1024, 4096, 16, dropout=0.3),
    "transformer_iwslt_de_en": _transformer(6, 512, 1024, 4),
    "transformer_tiny": _transformer(2, 64, 64, 2),
    "transformer": _transformer(6, 512, 2048, 8),
    "awd_lstm": Architecture(
        "awd_lstm",
        {
            "decoder_layers": 3,
            "decoder_embed_dim": 400,
            "decoder_hidden_size": 1150,
            "dropout": 0.4,
            "input_dropout": 0.4,
            "hidden_dropout": 0.25,
            "embedding_dropout": 0.1,
            "weight_dropout": 0.5,
        },
    ),
    "transformer_lm": Architecture("transformer_lm", {**_side("decoder", 6, 512, 2048, 8), **_SHARED}),
    **{
        name: Architecture("image_classifier", {"dropout": network.dropout, "conv_init": network.conv_init})
        for name, network in NETWORKS.items()
    },
}
"""Sizes: Vaswani et al. 2017, table 3 (base, big); Merity et al. 2018 on PTB with the dropouts of the released command
(awd_lstm); `seqba.models.image_networks`; fairseq's recipes (the others)."""


def architecture(arch: str, family: Family) -> Architecture:
    """The architecture of that name.

    Raises:
        UserError: if there is none in the family.
    """
    found = ARCHITECTURES.get(arch)
    if found is None or found.family != family:
        names = [name for name, other in ARCHITECTURES.items() if other.family == family]
        raise UserError(f"--arch is {quoted(arch)}; choose one of: {', '.join(names)}")
    return found


def resolve_transformer(arch: str, options: TransformerOptions) -> TransformerOptions:
    """Fills what `options` leaves open with the architecture's values.

    A given --encoder-embed-dim also sets a decoder width that isn't given, and likewise the feed-forward width, as in
    fairseq.

    Raises:
        UserError: for an unknown architecture.
    """
    given = _given(options)
    for name in ("embed_dim", "ffn_embed_dim"):
        if f"encoder_{name}" in given:
            given.setdefault(f"decoder_{name}", given[f"encoder_{name}"])
    return TransformerOptions(**{**architecture(arch, "transformer").fields, **given})


def resolve_transformer_lm(arch: str, options: TransformerLMOptions, *, longest: int) -> TransformerLMOptions:
    """Fills what `options` leaves open with the architecture's values.

    Args:
        arch: its name.
        options: what was given.
        longest: tokens of the longest row that the data will have, for --max-target-positions.

    Raises:
        UserError: for an unknown architecture.
    """
    fields = architecture(arch, "transformer_lm").fields
    return TransformerLMOptions(**{**fields, "max_target_positions": longest, **_given(options)})


def resolve_awd_lstm(arch: str, options: AWDLSTMOptions) -> AWDLSTMOptions:
    """Fills what `options` leaves open with the architecture's values.

    Raises:
        UserError: for an unknown architecture.
    """
    return AWDLSTMOptions(**{**architecture(arch, "awd_lstm").fields, **_given(options)})


def resolve_image_classifier(arch: str, options: ImageClassifierOptions) -> ImageClassifierOptions:
    """Fills what `options` leaves open with the architecture's values.

    Raises:
        UserError: for an unknown architecture, or a dropout or a way of initialisation that it has no place for.
    """
    fields = architecture(arch, "image_classifier").fields
    for name in ("dropout", "conv_init"):
        if getattr(options, name) is not None and fields[name] is None:
            having = [other for other, network in NETWORKS.items() if getattr(network, name) is not None]
            have = "has" if len(having) == 1 else "have"
            raise UserError(f"{flag_of(name)} has no place in --arch {arch}: {', '.join(having)} {have} one")
    return ImageClassifierOptions(**{**fields, **_given(options)})


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
    sizes = dataclasses.asdict(options)
    return _build(
        lambda: Transformer(source_vocabulary=source_vocabulary, target_vocabulary=target_vocabulary, **sizes)
    )


def build_transformer_lm(options: TransformerLMOptions, vocabulary: int) -> TransformerLM:
    """Builds the model from resolved options and the size of the dictionary.

    Raises:
        UserError: for sizes that don't fit together.
    """
    return _build(lambda: TransformerLM(vocabulary=vocabulary, **dataclasses.asdict(options)))


def build_awd_lstm(options: AWDLSTMOptions, vocabulary: int) -> AWDLSTM:
    """Builds the model from resolved options and the size of the dictionary.

    Raises:
        UserError: for sizes that can't be.
    """
    sizes = dataclasses.asdict(options)
    return _build(
        lambda: AWDLSTM(
            vocabulary=vocabulary,
            layers=sizes["decoder_layers"],
            embed_dim=sizes["decoder_embed_dim"],
            hidden_size=sizes["decoder_hidden_size"],
            dropout=sizes["dropout"],
            input_dropout=sizes["input_dropout"],
            hidden_dropout=sizes["hidden_dropout"],
            embedding_dropout=sizes["embedding_dropout"],
            weight_dropout=sizes["weight_dropout"],
            share_weight_noise=options.weight_noise == "shared",
        )
    )


def build_image_classifier(
    arch: str, options: ImageClassifierOptions, classes: int, image_size: int
) -> ImageClassifier:
    """Builds the network of that name from resolved options, the number of classes and the side of the pictures.

    Raises:
        UserError: for sizes that don't fit together.
    """
    return _build(lambda: build_network(arch, options, classes, image_size))


def _given(options: ModelOptions) -> dict[str, Any]:
    return {name: value for name, value in dataclasses.asdict(options).items() if value is not None}


def _build(make: Callable[[], Model]) -> Model:
    try:
        return make()
    except ValueError as error:
        raise UserError(str(error)) from error
    except (RuntimeError, OverflowError, MemoryError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"a model of these sizes can't be made: {reason}; lower its options") from error
