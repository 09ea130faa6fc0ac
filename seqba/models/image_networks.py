"""The image networks by name, each with the function that builds it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import nn

from seqba.models.alexnet import alexnet_bn
from seqba.models.classifier import Fan, Norm
from seqba.models.config import ImageClassifierConfig
from seqba.models.densenet import densenet_bc
from seqba.models.evolved import EvolvedNetwork
from seqba.models.genotypes import GENOTYPES
from seqba.models.mobilenet import mobilenet_v1
from seqba.models.resnet import resnet_cifar, resnet_imagenet, wide_resnet
from seqba.models.vgg import vgg16_bn
from seqba.nn import GhostBatchNorm2d


@dataclass(frozen=True)
class Network:
    """A named network.

    Attributes:
        build: (classes, side of the pictures in pixels, norm, configuration) → the model.
        dropout: the network's own; None for one without.
        conv_init: what the variance of the initial weights goes by; None for one that leaves no choice.
        has_head_dropout: whether its dropout is all in its head, where copies may begin.
        init_channels: F of a network of searched cells, and so the next three; None for the other networks.
        layers: number of cells.
        drop_path: probability of drop path at the end of its rise.
        auxiliary_weight: of the auxiliary head's loss.
    """

    build: Callable[[int, int, Norm, ImageClassifierConfig], nn.Module]
    dropout: float | None = None
    conv_init: Fan | None = None
    has_head_dropout: bool = False
    init_channels: int | None = None
    layers: int | None = None
    drop_path: float | None = None
    auxiliary_weight: float | None = None


NETWORK_OPTIONS = ("dropout", "conv_init", "init_channels", "layers", "drop_path", "auxiliary_weight")
"""Options that some networks have and others have no place for."""


def _resnet(depth: int) -> Network:
    return Network(lambda classes, _, norm, __: resnet_cifar(classes, depth=depth, norm=norm))


def _evolved(name: str) -> Network:
    return Network(
        lambda classes, side, norm, config: EvolvedNetwork(
            classes,
            GENOTYPES[name],
            image_size=side,
            init_channels=config.init_channels or 36,
            layers=config.layers or 20,
            norm=norm,
            drop_path=config.drop_path or 0.0,
            auxiliary_weight=config.auxiliary_weight or 0.0,
        ),
        init_channels=36,
        layers=20,
        drop_path=0.2,
        auxiliary_weight=0.4,
    )


NETWORKS: dict[str, Network] = {
    "resnet8": _resnet(8),
    "resnet20": _resnet(20),
    "resnet32": _resnet(32),
    "resnet44": _resnet(44),
    "resnet56": _resnet(56),
    "wide_resnet28_10": Network(
        lambda classes, _, norm, config: wide_resnet(
            classes, depth=28, widen=10, norm=norm, dropout=config.dropout or 0.0
        ),
        dropout=0.0,
    ),
    "vgg16_bn": Network(
        lambda classes, side, norm, config: vgg16_bn(
            classes, image_size=side, norm=norm, dropout=config.dropout or 0.0
        ),
        dropout=0.5,
        has_head_dropout=True,
    ),
    "densenet_bc100_12": Network(
        lambda classes, _, norm, config: densenet_bc(
            classes, depth=100, growth=12, norm=norm, fan="fan-in" if config.conv_init == "fan-in" else "fan-out"
        ),
        conv_init="fan-out",
    ),
    "resnet50": Network(lambda classes, _, norm, __: resnet_imagenet(classes, depth=50, norm=norm)),
    "mobilenet_v1": Network(lambda classes, _, norm, __: mobilenet_v1(classes, norm=norm)),
    "alexnet": Network(
        lambda classes, side, norm, config: alexnet_bn(
            classes, image_size=side, norm=norm, dropout=config.dropout or 0.0
        ),
        dropout=0.5,
        has_head_dropout=True,
    ),
    **{name: _evolved(name) for name in GENOTYPES},
}
"""The networks of Hoffer et al. 2020, table 2; sizes of He et al. 2016 around ResNet44; resnet8, to try
things; NASNet-A and the first-order cells of DARTS, whose released code has them beside the others."""


def build_network(name: str, config: ImageClassifierConfig, classes: int, image_size: int) -> nn.Module:
    """Builds a network from its configuration.

    Raises:
        ValueError: for a size of pictures that it can't have.
    """
    norm = partial(GhostBatchNorm2d, ghost_batch=config.ghost_batch)
    return NETWORKS[name].build(classes, image_size, norm, config)
