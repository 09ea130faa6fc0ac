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
from seqba.models.architectures import AWD_LSTMS, IMAGE_CLASSIFIERS, TRANSFORMER_LMS, TRANSFORMERS
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


FORKING = frozenset(name for name, network in NETWORKS.items() if network.has_head_dropout)
"""Image networks in whose heads copies may begin."""


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
