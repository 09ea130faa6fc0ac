"""Families of models: for each its options, and its named architectures.

A new family is a model in a file of its own, its options and its configuration, one record here, and its builder in
`seqba.models.builders`. Nothing here needs torch: a command line is read, and refused, without waiting for it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from seqba.errors import UserError, quoted
from seqba.models.config import AWDLSTMConfig, DecoderConfig, ImageClassifierConfig, TransformerConfig
from seqba.models.forks import DECODER_LAYER, ENCODER, HEAD, layer_places
from seqba.models.image_networks import NETWORK_OPTIONS, NETWORKS
from seqba.models.options import AWDLSTMOptions, ImageClassifierOptions, TransformerLMOptions, TransformerOptions
from seqba.models.timm_names import TIMM, TIMM_OPTIONS, check_timm
from seqba.options import flag_of, options_from, plain_options

Options = TypeVar("Options")
Config = TypeVar("Config")


@dataclass(frozen=True)
class Family(Generic[Options, Config]):
    """A class of models that have the same options.

    Attributes:
        title: of the options on a command line.
        options: what can be chosen; None (or False) leaves it to the architecture.
        config: the same with nothing left open.
        architectures: the named configurations.
        data_sizes: sizes of the data that a model is made for, by their names in a task's state.
        resolve: (architecture, options) → configuration.
        width: configuration → D, which a learning rate may go by; None for a model that has no one width.
        rows_share: whether the rows of a batch share something (batch norm, masks on weights).
        forward_methods: methods that losses call in place of `forward`.
        fork_places: (architecture, configuration) → names of the places at which copies may begin, for the `fork_at` of
            a model; empty where there is none.
        prefix: what the names of another program's models begin with, which belong to it too; "" for none.
        has_layers: whether it is made of the layers of `seqba.models.layers`, which can be computed again and compiled.
    """

    title: str
    options: type[Options]
    config: type[Config]
    architectures: Mapping[str, Config]
    data_sizes: tuple[str, ...]
    resolve: Callable[[str, Options], Config]
    width: Callable[[Config], int | None]
    rows_share: bool
    forward_methods: tuple[str, ...] = ()
    fork_places: Callable[[str, Config], tuple[str, ...]] = lambda *_: ()
    prefix: str = ""
    has_layers: bool = False

    def read(self, values: Mapping[str, Any]) -> Config:
        """Configuration that a file holds as plain values, names, types and ranges checked.

        Raises:
            TypeError: for an unknown name, a value of another type, or one that is missing.
            UserError: for a value out of its range.
        """
        return options_from(self.config, plain_options(options_from(self.options, values)))


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

FORKING = frozenset(name for name, network in NETWORKS.items() if network.has_head_dropout)
"""Image networks in whose heads copies may begin."""

IMAGE_CLASSIFIERS = {
    name: ImageClassifierConfig(**{option: getattr(network, option) for option in NETWORK_OPTIONS})
    for name, network in NETWORKS.items()
}
"""The networks of `seqba.models.image_networks`."""


def resolve_transformer(arch: str, options: TransformerOptions) -> TransformerConfig:
    """Fills what `options` leaves open with the architecture's values.

    A given --encoder-embed-dim also sets a decoder width that isn't given, and likewise the feed-forward width, as in
    fairseq.

    Raises:
        UserError: for an unknown architecture.
    """
    given = given_options(options)
    for name in ("embed_dim", "ffn_embed_dim"):
        if f"encoder_{name}" in given:
            given.setdefault(f"decoder_{name}", given[f"encoder_{name}"])
    return replace(_find(arch, TRANSFORMERS), **given)


def resolve_transformer_lm(arch: str, options: TransformerLMOptions) -> DecoderConfig:
    """Fills what `options` leaves open with the architecture's values.

    Raises:
        UserError: for an unknown architecture.
    """
    return replace(_find(arch, TRANSFORMER_LMS), **given_options(options))


def resolve_awd_lstm(arch: str, options: AWDLSTMOptions) -> AWDLSTMConfig:
    """Fills what `options` leaves open with the architecture's values.

    Raises:
        UserError: for an unknown architecture.
    """
    return replace(_find(arch, AWD_LSTMS), **given_options(options))


def resolve_image_classifier(arch: str, options: ImageClassifierOptions) -> ImageClassifierConfig:
    """Fills what `options` leaves open with the architecture's values.

    Raises:
        UserError: for an unknown architecture, or an option that it has no place for.
    """
    if arch.startswith(TIMM):
        check_timm(arch)
    config = ImageClassifierConfig() if arch.startswith(TIMM) else _find(arch, IMAGE_CLASSIFIERS)
    for name in NETWORK_OPTIONS:
        if arch.startswith(TIMM) and name in TIMM_OPTIONS:
            continue
        if getattr(options, name) is not None and getattr(config, name) is None:
            having = [other for other, network in NETWORKS.items() if getattr(network, name) is not None]
            have = "has" if len(having) == 1 else "have"
            raise UserError(f"{flag_of(name)} has no place in --arch {arch}: {', '.join(having)} {have} one")
    return replace(config, **given_options(options))


FAMILIES: dict[str, Family[Any, Any]] = {
    "transformer": Family(
        title="Transformer",
        options=TransformerOptions,
        config=TransformerConfig,
        architectures=TRANSFORMERS,
        data_sizes=("source_vocabulary", "target_vocabulary"),
        resolve=resolve_transformer,
        width=lambda config: config.encoder_embed_dim,
        rows_share=False,
        forward_methods=("features",),
        fork_places=lambda _, config: (ENCODER, *layer_places(config.decoder_layers, DECODER_LAYER)),
        has_layers=True,
    ),
    "awd_lstm": Family(
        title="AWD-LSTM (language_modeling)",
        options=AWDLSTMOptions,
        config=AWDLSTMConfig,
        architectures=AWD_LSTMS,
        data_sizes=("vocabulary",),
        resolve=resolve_awd_lstm,
        width=lambda config: config.decoder_embed_dim,
        rows_share=True,
        forward_methods=("window",),
        fork_places=lambda _, config: (*layer_places(config.decoder_layers), HEAD),
    ),
    "transformer_lm": Family(
        title="Transformer without encoder (language_modeling)",
        options=TransformerLMOptions,
        config=DecoderConfig,
        architectures=TRANSFORMER_LMS,
        data_sizes=("vocabulary",),
        resolve=resolve_transformer_lm,
        width=lambda config: config.decoder_embed_dim,
        rows_share=False,
        forward_methods=("features",),
        fork_places=lambda _, config: layer_places(config.decoder_layers),
        has_layers=True,
    ),
    "image_classifier": Family(
        title="image networks (image_classification)",
        options=ImageClassifierOptions,
        config=ImageClassifierConfig,
        architectures=IMAGE_CLASSIFIERS,
        data_sizes=("classes", "image_size"),
        resolve=resolve_image_classifier,
        width=lambda _: None,
        rows_share=True,
        fork_places=lambda arch, config: (HEAD,) if arch in FORKING and config.dropout else (),
        prefix=TIMM,
    ),
}
"""Every family of models by its name."""


class Architectures(Mapping[str, str]):
    """Every named architecture → the name of its family; names of another program's models are known, not listed."""

    def __init__(self) -> None:
        self._named = {arch: name for name, family in FAMILIES.items() for arch in family.architectures}
        self._prefixes = {family.prefix: name for name, family in FAMILIES.items() if family.prefix}

    def __getitem__(self, arch: str) -> str:
        """Name of the family of an architecture."""
        if arch in self._named:
            return self._named[arch]
        for prefix, name in self._prefixes.items():
            if isinstance(arch, str) and arch.startswith(prefix):
                return name
        raise KeyError(arch)

    def __iter__(self) -> Iterator[str]:
        """The named architectures."""
        return iter(self._named)

    def __len__(self) -> int:
        """How many are named."""
        return len(self._named)


ARCHITECTURES = Architectures()


def family_of(arch: str) -> Family[Any, Any]:
    """The family of an architecture."""
    return FAMILIES[ARCHITECTURES[arch]]


def _find(arch: str, architectures: Mapping[str, Config]) -> Config:
    if arch not in architectures:
        raise UserError(f"--arch is {quoted(arch)}; choose one of: {', '.join(architectures)}")
    return architectures[arch]


def given_options(options: Any) -> dict[str, Any]:
    """Options that were given; None, and False of a switch, leave it to the architecture."""
    return {
        name: value for name, value in dataclasses.asdict(options).items() if value is not None and value is not False
    }
