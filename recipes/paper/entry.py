"""A table row or figure of the paper: what makes it, what that costs, and what the paper has for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

GPU = "an NVIDIA A100"
GPU_FLOPS = 312e12
"""Of bfloat16 products, without sparsity, a second."""

FLOP_PER_PRODUCT = 6
"""A multiply-add is two operations, and the backward makes two for each of the forward."""


@dataclass(frozen=True)
class Network:
    """A network, and what a row costs it.

    Attributes:
        products: multiply-adds of a forward of one picture, or of one word (and one of its source), counted.
        share: of `GPU_FLOPS` that a training is taken to reach; assumed, not measured.
    """

    products: float
    share: float


NETWORKS = {
    "ResNet44": Network(97.4e6, 0.03),
    "VGG16": Network(332e6, 0.1),
    "WResNet28-10": Network(5243e6, 0.2),
    "DARTS": Network(528.4e6, 0.01),
    "AmoebaNet": Network(488.9e6, 0.01),
    "AmoebaNet (width=128)": Network(5729.8e6, 0.04),
    "DenseNet100-12": Network(288e6, 0.01),
    "AlexNet": Network(714e6, 0.1),
    "MobileNet": Network(569e6, 0.03),
    "ResNet50": Network(4089e6, 0.1),
    "LSTM": Network(24.2e6, 0.03),
    "Transformer": Network(60.9e6, 0.15),
}
"""By the paper's name. Depthwise convolutions and concatenations move more memory than they compute."""


@dataclass(frozen=True)
class Entry:
    """A row or figure.

    Attributes:
        name: for --row.
        place: in the paper.
        title: what is trained on what.
        network: one of `NETWORKS`.
        commands: recipes and their arguments, one after the other; --scale, --out and the data are added to each.
        rows: pictures or words that one copy sees in all updates of the baseline.
        passes: rows of all runs together, in those of the baseline.
        paper: what the paper has, by its columns.
        unit: of those figures.
        plot: seqba-plot's options for a figure.
        folder: of the runs, where another entry has the same; its own name otherwise.
    """

    name: str
    place: str
    title: str
    network: str
    commands: tuple[str, ...]
    rows: float
    passes: int
    paper: Mapping[str, float] = field(default_factory=dict)
    unit: str = "top-1 %"
    plot: str = ""
    folder: str = ""

    @property
    def flop(self) -> float:
        """Operations of all runs, forward and backward."""
        return FLOP_PER_PRODUCT * NETWORKS[self.network].products * self.rows * self.passes

    @property
    def gpu_hours(self) -> float:
        """Hours of `GPU` at the network's share of its rate."""
        return self.flop / (NETWORKS[self.network].share * GPU_FLOPS) / 3600
