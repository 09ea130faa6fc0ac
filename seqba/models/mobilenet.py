"""MobileNet: depthwise separable convolutions."""

from __future__ import annotations

import itertools

from torch import nn

from seqba.models.classifier import ImageClassifier, Norm, average_head, conv_norm_relu, convolution, sequence

STEM_WIDTH = 32

BLOCKS = (
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    *[(512, 1)] * 5,
    (1024, 2),
    (1024, 1),
)
"""Output channels and stride of each separable convolution. The last one's stride is 2 in the paper's table 1, but its
own sizes (7×7 in, 7×7 out) need 1."""

CUTS = (3, 5)
"""Blocks before stage 1 and stage 2: where 224×224 images have come to 56×56 and to 28×28, as in `resnet_imagenet`."""


def mobilenet_v1(classes: int, *, width: float = 1.0, norm: Norm = nn.BatchNorm2d) -> ImageClassifier:
    """A 3×3 stem with stride 2, thirteen depthwise separable convolutions, global average, linear layer.

    A separable convolution is a 3×3 convolution of each channel by itself (`depthwise`), then a 1×1 convolution over
    channels (`pointwise`), each with norm and relu. No convolution has a bias: Batch Augmentation's released code gives
    its depthwise ones a bias, which the norm behind them takes away again. Stages: the stem and blocks 1 to 3, blocks 4
    and 5, the rest. Any image size.

    Args:
        classes: number of classes.
        width: α, which all numbers of channels are multiplied by and then rounded.
        norm: makes a norm for a number of channels.

    Raises:
        ValueError: for a width that leaves no channel.

    Initial weights: the framework's own, as in Batch Augmentation's released code; the paper doesn't name any.

    Source: Howard et al. 2017, table 1, figure 3 and section 3.3.
    """
    inputs = round(width * STEM_WIDTH)
    if inputs < 1:
        raise ValueError(f"width is {width}; it must leave at least one of {STEM_WIDTH} channels")
    parts: dict[str, nn.Module] = {"stem": conv_norm_relu(convolution(3, inputs, 3, stride=2), norm)}
    for number, (channels, stride) in enumerate(BLOCKS, start=1):
        outputs = round(width * channels)
        parts[f"block{number}"] = _separable(inputs, outputs, stride, norm)
        inputs = outputs
    parts["head"] = average_head(inputs, classes)
    names = list(parts)
    bounds = [0, *[1 + blocks for blocks in CUTS], len(names)]
    return ImageClassifier(
        [sequence({name: parts[name] for name in names[start:end]}) for start, end in itertools.pairwise(bounds)]
    )


def _separable(inputs: int, outputs: int, stride: int, norm: Norm) -> nn.Sequential:
    return sequence(
        {
            "depthwise": conv_norm_relu(convolution(inputs, inputs, 3, stride=stride, groups=inputs), norm),
            "pointwise": conv_norm_relu(convolution(inputs, outputs, 1), norm),
        }
    )
