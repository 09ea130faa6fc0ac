"""DenseNet-BC for CIFAR: densely connected layers with bottlenecks and compression."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from seqba.models.classifier import ImageClassifier, Norm, average_head, convolution, init_convolutions, sequence
from seqba.models.sizes import Fan
from seqba.nn import Dropout

BOTTLENECK = 4
"""Channels of a layer's 1×1 convolution for each channel that the layer adds."""

BLOCKS = 3


class DenseLayer(nn.Module):
    """Adds `growth` channels to those of its input: [x, conv3×3(relu(norm(conv1×1(relu(norm(x))))))].

    Args:
        inputs: channels of x.
        growth: k, the channels that are added.
        norm: makes a norm for a number of channels.
        dropout: probability of dropping after each convolution; each element of each row has its own draw.

    Shape:
        (R, inputs, H, W) → (R, inputs + growth, H, W); x comes first.

    Source: Huang et al. 2017, section 3, "Bottleneck layers".
    """

    def __init__(self, inputs: int, growth: int, *, norm: Norm, dropout: float = 0.0) -> None:
        super().__init__()
        self.branch = sequence(
            {
                "norm1": norm(inputs),
                "relu1": nn.ReLU(inplace=True),
                "conv1": convolution(inputs, BOTTLENECK * growth, 1),
                "dropout1": Dropout(dropout),
                "norm2": norm(BOTTLENECK * growth),
                "relu2": nn.ReLU(inplace=True),
                "conv2": convolution(BOTTLENECK * growth, growth, 3),
                "dropout2": Dropout(dropout),
            }
        )

    def forward(self, x: Tensor) -> Tensor:
        """Puts new channels behind those of x (R, inputs, H, W)."""
        return torch.cat([x, self.branch(x)], dim=1)


def densenet_bc(
    classes: int,
    *,
    depth: int = 100,
    growth: int = 12,
    norm: Norm = nn.BatchNorm2d,
    dropout: float = 0.0,
    fan: Fan = "fan-out",
) -> ImageClassifier:
    """A 3×3 stem of 2·growth channels, three dense blocks of n layers, half of the channels kept between two blocks.

    depth = 6n + 4: two convolutions a layer, the stem, two transitions and the linear layer. A transition is norm,
    relu, a 1×1 convolution to ⌊half⌋ of the channels and 2×2 average pooling. After the last block come norm, relu,
    global average and the linear layer. Stages: the stem and block 1 with its transition, block 2 with its transition,
    block 3 and the head.

    Args:
        classes: number of classes.
        depth: 6n + 4; 100 has n = 16.
        growth: k, the channels that a layer adds.
        norm: makes a norm for a number of channels.
        dropout: after each convolution but the stem; 0.2 in the paper where images aren't augmented, else none.
        fan: of the initial weights: fan-out as in DenseNet's released code (torch7), fan-in as in Batch Augmentation's.

    Raises:
        ValueError: for a depth that isn't 6n + 4 with n ≥ 1.

    Initial weights: `init_convolutions` by `fan`; γ = 1, β = 0; the linear layer's are the framework's own, but for its
    bias, which is 0.

    Source: Huang et al. 2017, sections 3 and 4.2.
    """
    if depth < 10 or (depth - 4) % 6:
        raise ValueError(f"depth is {depth}; it must be 6n + 4: 10, 16, 22, … 100")
    layers = (depth - 4) // 6
    channels = 2 * growth
    stages = []
    for number in range(1, BLOCKS + 1):
        parts: dict[str, nn.Module] = {"stem": convolution(3, channels, 3)} if number == 1 else {}
        parts["block"] = nn.Sequential(
            *[DenseLayer(channels + done * growth, growth, norm=norm, dropout=dropout) for done in range(layers)]
        )
        channels += layers * growth
        if number < BLOCKS:
            parts["transition"] = _transition(channels, channels // 2, norm, dropout)
            channels //= 2
        else:
            parts.update(norm=norm(channels), relu=nn.ReLU(inplace=True), head=average_head(channels, classes))
        stages.append(sequence(parts))
    model = ImageClassifier(stages)
    init_convolutions(model, fan=fan)
    nn.init.zeros_(model.get_parameter(f"stages.{BLOCKS - 1}.head.linear.bias"))
    return model


def _transition(inputs: int, outputs: int, norm: Norm, dropout: float) -> nn.Sequential:
    return sequence(
        {
            "norm": norm(inputs),
            "relu": nn.ReLU(inplace=True),
            "conv": convolution(inputs, outputs, 1),
            "dropout": Dropout(dropout),
            "pool": nn.AvgPool2d(2),
        }
    )
