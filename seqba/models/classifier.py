"""Parts that all image models are built of, and their common form: stages between which mixup may mix."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from seqba.models.forks import HEAD
from seqba.models.sizes import Fan
from seqba.noise.fork import fork

Norm = Callable[[int], nn.Module]
"""Makes the normalization of so many channels: `nn.BatchNorm2d`, or a subclass with other statistics."""


class Mixes(Protocol):
    """Interface of mixup to a model."""

    def at(self, x: Tensor, stage: int) -> Tensor:
        """Mixes those rows of x (R, C, H, W) whose place is before `stage`; 0 is the input."""


class ImageClassifier(nn.Module):
    """Image classifier of consecutive stages; manifold mixup may mix the input of any of them.

    Every network of this package has three stages. What goes into stage 0 are the images, and mixing them is ordinary
    mixup; stages 1 and 2 read what the network's first two parts made of them. Those are the places {0, 1, 2} from
    which Verma et al. draw one for residual networks: the images, and the outputs of the first and of the second group
    of blocks. In the other networks the cuts lie at the end of an early resolution; each builder says where.

    Args:
        stages: in order. The last one contains the pooling and the head.
        image_size: side of the square images that the head was built for; None where it takes any size, because it
            averages over all positions.
        first_dropout: name of the first dropout in the head, the last part of the last stage, where copies may begin
            (`fork_at`); None for a network without one.

    Shape:
        images (R, C, H, W), floating → logits (R, classes). They are computed with channels last in memory, whatever
        format they come in: a CPU runs these networks a third faster so.

    Raises:
        ValueError: without stages, and for images that aren't (R, C, H, W) or of `image_size`.

    Source: Verma et al. 2019, "Manifold Mixup"; the places are those of its released code.
    """

    def __init__(
        self, stages: Sequence[nn.Module], *, image_size: int | None = None, first_dropout: str | None = None
    ) -> None:
        super().__init__()
        if not stages:
            raise ValueError("an image classifier has at least one stage")
        self.stages = nn.ModuleList(stages)
        self.first_dropout = first_dropout
        self.forks = False
        nn.utils.convert_conv2d_weight_memory_format(self, torch.channels_last)
        self.image_size = image_size

    def forward(self, images: Tensor, mixing: Mixes | None = None) -> Tensor:
        """Images (R, C, H, W) → logits (R, classes), mixed before every stage at which `mixing` does so."""
        check_images(images, self.image_size)
        if self.forks and self.first_dropout is not None:
            rest, head = self._split_last_stage(self.first_dropout)
            hidden: Tensor = fork(self._below, images, mixing, rest)
            return _through(hidden, head)
        return self._below(images, mixing, [self.stages[-1]])

    def fork_at(self, place: str | None) -> None:
        """Has copies begin in the `head`, before its first dropout; or with the images, at None.

        Raises:
            ValueError: for a place that isn't there.
        """
        if place is not None and (place != HEAD or self.first_dropout is None):
            has = f"has {HEAD} alone" if self.first_dropout else "has no dropout in its head"
            raise ValueError(f"copies can't begin at {place!r}: this network {has}")
        self.forks = place is not None

    def _below(self, images: Tensor, mixing: Mixes | None, last: Sequence[nn.Module]) -> Tensor:
        """All stages, with `last` in place of the last one."""
        x = images.contiguous(memory_format=torch.channels_last)
        for number, stage in enumerate(self.stages):
            if mixing is not None:
                x = mixing.at(x, number)
            x = _through(x, last if number == len(self.stages) - 1 else [stage])
        return x

    def _split_last_stage(self, first_dropout: str) -> tuple[list[nn.Module], list[nn.Module]]:
        """The modules of the last stage up to its head's first dropout, and from there on."""
        *rest, head = self.stages[-1].children()
        names = [name for name, _ in head.named_children()]
        parts, cut = list(head.children()), names.index(first_dropout)
        return [*rest, *parts[:cut]], parts[cut:]


def check_images(images: Tensor, image_size: int | None = None) -> None:
    """Refuses what isn't (R, C, H, W), or whose sides aren't `image_size` where that is given.

    Raises:
        ValueError: with the shape.
    """
    # Convolutions would take (C, H, W) for a single image, and go wrong only at the head.
    if images.dim() != 4:
        raise ValueError(f"images are (rows, channels, height, width), not {tuple(images.shape)}")
    if image_size is not None and images.shape[2:] != (image_size, image_size):
        height, width = images.shape[2:]
        raise ValueError(f"the model is for images of {image_size}×{image_size}, not {height}×{width}")


def _through(x: Tensor, modules: Iterable[nn.Module]) -> Tensor:
    for module in modules:
        x = module(x)
    return x


def sequence(parts: Mapping[str, nn.Module]) -> nn.Sequential:
    """The parts one after the other, under their names."""
    return nn.Sequential(OrderedDict(parts))


def convolution(
    inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1, bias: bool = False
) -> nn.Conv2d:
    """A square convolution with an odd kernel that keeps the resolution at stride 1; no bias, as a norm follows."""
    return nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=bias)


def conv_norm_relu(convolution: nn.Conv2d, norm: Norm) -> nn.Sequential:
    """`conv`, `norm`, `relu`. The activation works in place: no norm needs its own output in the backward."""
    return sequence(
        {"conv": convolution, "norm": norm(convolution.out_channels), "relu": nn.ReLU(inplace=True)},
    )


def average_head(features: int, classes: int) -> nn.Sequential:
    """(R, features, H, W) → logits (R, classes): the mean over all positions, then `linear`."""
    return sequence({"pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "linear": nn.Linear(features, classes)})


def init_convolutions(model: nn.Module, *, fan: Fan = "fan-out") -> None:
    """Draws every convolution's weights from N(0, 2/n); biases become 0.

    Args:
        model: whose convolutions.
        fan: n is kernel area × the output channels (fan-out), or × the input channels of a group (fan-in).

    Randomness: the global generator, in the order of `model.modules()`.

    Source: He et al. 2015, "Delving Deep into Rectifiers", section 2.2, its backward case (equation 14) and its forward
    case (equation 10).
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            channels = module.out_channels if fan == "fan-out" else module.weight.shape[1]
            n = math.prod(module.kernel_size) * channels
            nn.init.normal_(module.weight, std=math.sqrt(2 / n))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
