"""Operations on the edges of a searched cell, and what brings states to its width."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from seqba.models.classifier import Norm, convolution, sequence


class SeparableConvolution(nn.Sequential):
    """Twice: relu, a convolution of each channel by itself (`depthwise`), one over channels (`pointwise`), norm.

    Args:
        channels: C.
        kernel: side of both depthwise kernels; odd.
        stride: of the first depthwise convolution.
        norm: makes a norm for a number of channels.

    Shape:
        (R, C, H, W) → (R, C, ⌈H/stride⌉, ⌈W/stride⌉).
    """

    def __init__(self, channels: int, kernel: int, stride: int, norm: Norm) -> None:
        super().__init__(
            _depthwise(channels, kernel, stride, norm),
            _depthwise(channels, kernel, 1, norm),
        )


class FactorizedReduce(nn.Module):
    """Halves the resolution: half of the channels from the even rows and columns, half from the odd ones.

        norm([conv1×1(relu(x))[::2, ::2], conv1×1(relu(x))[1::2, 1::2]])

    Args:
        inputs: channels of x.
        outputs: channels of the result; even.
        norm: makes a norm for a number of channels.

    Shape:
        (R, inputs, H, W) → (R, outputs, H/2, W/2); H and W are even.
    """

    def __init__(self, inputs: int, outputs: int, norm: Norm) -> None:
        super().__init__()
        self.even = convolution(inputs, outputs // 2, 1, stride=2)
        self.odd = convolution(inputs, outputs // 2, 1, stride=2)
        self.norm = norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Halves x (R, inputs, H, W)."""
        x = nn.functional.relu(x)
        result: Tensor = self.norm(torch.cat([self.even(x), self.odd(x[:, :, 1:, 1:])], dim=1))
        return result


def _depthwise(channels: int, kernel: int, stride: int, norm: Norm, dilation: int = 1) -> nn.Sequential:
    padding = dilation * (kernel // 2)
    depthwise = nn.Conv2d(channels, channels, kernel, stride, padding, dilation=dilation, groups=channels, bias=False)
    return sequence(
        {
            "relu": nn.ReLU(),  # not in place: other operations read the same state
            "depthwise": depthwise,
            "pointwise": convolution(channels, channels, 1),
            "norm": norm(channels),
        }
    )


def _average_pool(channels: int, stride: int, norm: Norm) -> nn.Module:
    return nn.AvgPool2d(3, stride, padding=1, count_include_pad=False)


def _max_pool(channels: int, stride: int, norm: Norm) -> nn.Module:
    return nn.MaxPool2d(3, stride, padding=1)


def _skip(channels: int, stride: int, norm: Norm) -> nn.Module:
    return nn.Identity() if stride == 1 else FactorizedReduce(channels, channels, norm)


def _wide_then_high(channels: int, stride: int, norm: Norm) -> nn.Module:
    return sequence(
        {
            "relu": nn.ReLU(),
            "wide": nn.Conv2d(channels, channels, (1, 7), (1, stride), (0, 3), bias=False),
            "high": nn.Conv2d(channels, channels, (7, 1), (stride, 1), (3, 0), bias=False),
            "norm": norm(channels),
        }
    )


OPERATIONS: Mapping[str, Callable[[int, int, Norm], nn.Module]] = {
    "skip": _skip,
    "avg": _average_pool,
    "max": _max_pool,
    "sep3": lambda channels, stride, norm: SeparableConvolution(channels, 3, stride, norm),
    "sep5": lambda channels, stride, norm: SeparableConvolution(channels, 5, stride, norm),
    "sep7": lambda channels, stride, norm: SeparableConvolution(channels, 7, stride, norm),
    "dil3": lambda channels, stride, norm: _depthwise(channels, 3, stride, norm, dilation=2),
    "dil5": lambda channels, stride, norm: _depthwise(channels, 5, stride, norm, dilation=2),
    "c7x1": _wide_then_high,
}
"""Name → what makes the operation from its channels C, its stride s and a norm: (R, C, H, W) → (R, C, H/s, W/s).

Skip is the identity, and at stride 2 a `FactorizedReduce`; pools are 3×3, and an average is over the pixels that there
are; dil3 and dil5 are a depthwise convolution with dilation 2 and a pointwise one; c7x1 is a 1×7 convolution, then a
7×1. All but skips and pools begin with a relu and end with a norm."""


def narrow(inputs: int, channels: int, norm: Norm) -> nn.Module:
    """Relu, a 1×1 convolution, norm: (R, inputs, H, W) → (R, channels, H, W)."""
    return sequence({"relu": nn.ReLU(), "conv": convolution(inputs, channels, 1), "norm": norm(channels)})
