"""The image networks by name, each with the options that it has a place for."""

from __future__ import annotations

from dataclasses import dataclass

from seqba.models.sizes import Fan


@dataclass(frozen=True)
class Network:
    """A named network's own values of the options that not all networks have.

    Attributes:
        dropout: the network's own; None for one without.
        conv_init: what the variance of the initial weights goes by; None for one that leaves no choice.
        has_head_dropout: whether its dropout is all in its head, where copies may begin.
        init_channels: F of a network of searched cells, and so the next three; None for the other networks.
        layers: number of cells.
        drop_path: probability of drop path at the end of its rise.
        auxiliary_weight: of the auxiliary head's loss.
    """

    dropout: float | None = None
    conv_init: Fan | None = None
    has_head_dropout: bool = False
    init_channels: int | None = None
    layers: int | None = None
    drop_path: float | None = None
    auxiliary_weight: float | None = None


NETWORK_OPTIONS = ("dropout", "conv_init", "init_channels", "layers", "drop_path", "auxiliary_weight")
"""Options that some networks have and others have no place for."""

_PLAIN = Network()
_EVOLVED = Network(init_channels=36, layers=20, drop_path=0.2, auxiliary_weight=0.4)

NETWORKS: dict[str, Network] = {
    "resnet8": _PLAIN,
    "resnet20": _PLAIN,
    "resnet32": _PLAIN,
    "resnet44": _PLAIN,
    "resnet56": _PLAIN,
    "wide_resnet28_10": Network(dropout=0.0),
    "vgg16_bn": Network(dropout=0.5, has_head_dropout=True),
    "densenet_bc100_12": Network(conv_init="fan-out"),
    "resnet50": _PLAIN,
    "mobilenet_v1": _PLAIN,
    "alexnet": Network(dropout=0.5, has_head_dropout=True),
    "darts": _EVOLVED,
    "darts_v1": _EVOLVED,
    "amoebanet": _EVOLVED,
    "nasnet_a": _EVOLVED,
}
"""The networks of Hoffer et al. 2020, table 2; sizes of He et al. 2016 around ResNet44; resnet8, to try
things; NASNet-A and the first-order cells of DARTS, whose released code has them beside the others."""
