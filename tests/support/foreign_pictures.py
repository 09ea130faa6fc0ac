"""An image network that holds nothing of seqba's, in the form of timm's, and a module that stands in for timm."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn


class BatchNormAct2d(nn.BatchNorm2d):
    """A batch norm that drops and activates, as timm's."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-3, momentum=0.2)
        self.drop = nn.Dropout(0.1)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.drop(super().forward(x)))


class Block(nn.Module):
    """A convolution beside the identity, which stochastic depth leaves out for a row."""

    def __init__(self, channels: int, drop_path: float) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(channels)
        self.drop_path = drop_path

    def forward(self, x: Tensor) -> Tensor:
        branch = self.bn(self.conv(x)).relu()
        if self.training and self.drop_path:
            kept = x.new_empty((len(x), 1, 1, 1)).bernoulli_(1 - self.drop_path)
            branch = branch * kept / (1 - self.drop_path)
        return x + branch


class ForeignNetwork(nn.Module):
    def __init__(self, num_classes: int = 10, drop_rate: float = 0.0, drop_path_rate: float = 0.0) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, stride=2, bias=False)
        self.bn1 = BatchNormAct2d(4)
        self.blocks = nn.Sequential(Block(4, drop_path_rate / 2), Block(4, drop_path_rate))
        self.drop_rate = drop_rate
        self.fc = nn.Linear(4, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        features = self.blocks(self.bn1(self.stem(x))).mean((2, 3))
        return self.fc(nn.functional.dropout(features, self.drop_rate, self.training))


class OfOneSize(nn.Module):
    """A network that is built for pictures of one size, and has no drop path."""

    def __init__(self, num_classes: int, img_size: int) -> None:
        super().__init__()
        self.fc = nn.Linear(3 * img_size**2, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x.flatten(1))


NETWORKS = {"tiny_net": ForeignNetwork, "tiny_vit": OfOneSize, "odd": lambda num_classes: nn.BatchNorm1d(num_classes)}


def stand_in() -> Any:
    """What of timm is used."""
    return SimpleNamespace(
        __version__="1.0",
        is_model=lambda name: name in NETWORKS,
        list_models=lambda: list(NETWORKS),
        get_pretrained_cfg=lambda name, allow_unregistered: SimpleNamespace(fixed_input_size=name == "tiny_vit"),
        create_model=lambda name, **given: NETWORKS[name](**given),
    )


def pictures(rows: int = 6, side: int = 8) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "x": torch.randn(rows, 3, side, side, generator=generator, dtype=torch.float64),
        "y": torch.randint(0, 10, (rows,), generator=generator),
    }
