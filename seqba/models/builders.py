"""Builders of models from their configurations, by family and by image network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

from torch import nn

from seqba.errors import UserError
from seqba.models.alexnet import alexnet_bn
from seqba.models.awd_lstm import AWDLSTM
from seqba.models.classifier import Norm
from seqba.models.config import AWDLSTMConfig, DecoderConfig, ImageClassifierConfig, TransformerConfig
from seqba.models.densenet import densenet_bc
from seqba.models.evolved import EvolvedNetwork
from seqba.models.families import ARCHITECTURES
from seqba.models.foreign import build_timm
from seqba.models.genotypes import GENOTYPES
from seqba.models.mobilenet import mobilenet_v1
from seqba.models.resnet import resnet_cifar, resnet_imagenet, wide_resnet
from seqba.models.timm_names import TIMM
from seqba.models.transformer import Transformer
from seqba.models.transformer_lm import TransformerLM
from seqba.models.vgg import vgg16_bn
from seqba.nn import GhostBatchNorm2d

Model = TypeVar("Model")
NetworkBuilder = Callable[[int, int, Norm, ImageClassifierConfig], nn.Module]
"""(classes, side of the pictures in pixels, norm, configuration) → the network."""


def fresh_model(arch: str, config: Any, data_sizes: Mapping[str, int]) -> nn.Module:
    """A model with fresh weights, drawn from torch's global generator.

    Args:
        arch: an architecture; its family says what is built.
        config: of its family's class.
        data_sizes: those that its family names.

    Raises:
        UserError: for sizes that don't fit together.
    """
    return BUILDERS[ARCHITECTURES[arch]](arch, config, data_sizes)


def build_transformer(config: TransformerConfig, source_vocabulary: int, target_vocabulary: int) -> Transformer:
    """Builds the model from its configuration and the sizes of both dictionaries.

    Raises:
        UserError: for sizes that don't fit together.
    """
    if config.share_all_embeddings and source_vocabulary != target_vocabulary:
        raise UserError(
            f"--share-all-embeddings needs a joined dictionary, but source and target have {source_vocabulary} and "
            f"{target_vocabulary} words: preprocess with --joined-dictionary"
        )
    if config.share_all_embeddings and config.encoder_embed_dim != config.decoder_embed_dim:
        raise UserError(
            f"--share-all-embeddings needs one width, but --encoder-embed-dim is {config.encoder_embed_dim} and "
            f"--decoder-embed-dim {config.decoder_embed_dim}"
        )
    return _build(lambda: Transformer(config, source_vocabulary=source_vocabulary, target_vocabulary=target_vocabulary))


def build_transformer_lm(config: DecoderConfig, vocabulary: int) -> TransformerLM:
    """Builds the model from its configuration and the size of the dictionary.

    Raises:
        UserError: for sizes that don't fit together.
    """
    return _build(lambda: TransformerLM(config, vocabulary=vocabulary))


def build_awd_lstm(config: AWDLSTMConfig, vocabulary: int) -> AWDLSTM:
    """Builds the model from its configuration and the size of the dictionary.

    Raises:
        UserError: for sizes that can't be.
    """
    return _build(lambda: AWDLSTM(config, vocabulary=vocabulary))


def build_image_classifier(arch: str, config: ImageClassifierConfig, classes: int, image_size: int) -> nn.Module:
    """Builds the network of that name from its configuration, the number of classes and the side of the pictures.

    Raises:
        UserError: for sizes that don't fit together.
    """
    build = build_timm if arch.startswith(TIMM) else build_network
    return _build(lambda: build(arch, config, classes, image_size))


def build_network(name: str, config: ImageClassifierConfig, classes: int, image_size: int) -> nn.Module:
    """Builds a network from its configuration.

    Raises:
        ValueError: for a size of pictures that it can't have.
    """
    norm = partial(GhostBatchNorm2d, ghost_batch=config.ghost_batch)
    return NETWORK_BUILDERS[name](classes, image_size, norm, config)


BUILDERS: dict[str, Callable[[str, Any, Mapping[str, int]], nn.Module]] = {
    "transformer": lambda _, config, data: build_transformer(
        config, data["source_vocabulary"], data["target_vocabulary"]
    ),
    "awd_lstm": lambda _, config, data: build_awd_lstm(config, data["vocabulary"]),
    "transformer_lm": lambda _, config, data: build_transformer_lm(config, data["vocabulary"]),
    "image_classifier": lambda arch, config, data: build_image_classifier(
        arch, config, data["classes"], data["image_size"]
    ),
}
"""The builder of every family: (architecture, configuration, `Family.data_sizes` by name) → a model."""


def _resnet(depth: int) -> NetworkBuilder:
    return lambda classes, _, norm, __: resnet_cifar(classes, depth=depth, norm=norm)


def _evolved(name: str) -> NetworkBuilder:
    return lambda classes, side, norm, config: EvolvedNetwork(
        classes,
        GENOTYPES[name],
        image_size=side,
        init_channels=config.init_channels or 36,
        layers=config.layers or 20,
        norm=norm,
        drop_path=config.drop_path or 0.0,
        auxiliary_weight=config.auxiliary_weight or 0.0,
    )


NETWORK_BUILDERS: dict[str, NetworkBuilder] = {
    "resnet8": _resnet(8),
    "resnet20": _resnet(20),
    "resnet32": _resnet(32),
    "resnet44": _resnet(44),
    "resnet56": _resnet(56),
    "wide_resnet28_10": lambda classes, _, norm, config: wide_resnet(
        classes, depth=28, widen=10, norm=norm, dropout=config.dropout or 0.0
    ),
    "vgg16_bn": lambda classes, side, norm, config: vgg16_bn(
        classes, image_size=side, norm=norm, dropout=config.dropout or 0.0
    ),
    "densenet_bc100_12": lambda classes, _, norm, config: densenet_bc(
        classes, depth=100, growth=12, norm=norm, fan="fan-in" if config.conv_init == "fan-in" else "fan-out"
    ),
    "resnet50": lambda classes, _, norm, __: resnet_imagenet(classes, depth=50, norm=norm),
    "mobilenet_v1": lambda classes, _, norm, __: mobilenet_v1(classes, norm=norm),
    "alexnet": lambda classes, side, norm, config: alexnet_bn(
        classes, image_size=side, norm=norm, dropout=config.dropout or 0.0
    ),
    **{name: _evolved(name) for name in GENOTYPES},
}
"""The builder of every image network."""


def _build(make: Callable[[], Model]) -> Model:
    try:
        return make()
    except ValueError as error:
        raise UserError(str(error)) from error
    except (RuntimeError, OverflowError, MemoryError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"a model of these sizes can't be made: {reason}; lower its options") from error
