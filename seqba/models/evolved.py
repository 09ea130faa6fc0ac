"""Networks of searched cells for small pictures: DARTS, AmoebaNet-A and NASNet-A."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from seqba.models.classifier import (
    Mixes,
    Norm,
    average_head,
    check_images,
    conv_norm_relu,
    convolution,
    sequence,
)
from seqba.nn import DropPath
from seqba.nn.auxiliary import AuxiliaryLogits

Edge = tuple[str, int]
"""An operation of `OPERATIONS`, and the number of the state that it reads."""

AUXILIARY_SIDES = (32, 36, 40)
"""Sides of pictures, in pixels, that the auxiliary head makes one position of."""


@dataclass(frozen=True)
class CellPlan:
    """What a cell computes.

    States 0 and 1 are the outputs of the cell before the last and of the last one, brought to the cell's width. Each
    node adds the results of two edges, and is the next state.

    Attributes:
        nodes: the two edges of states 2, 3, …; an edge reads a state before its own.
        output: the states whose channels, one after the other, are the cell's output.
    """

    nodes: tuple[tuple[Edge, Edge], ...]
    output: tuple[int, ...]


@dataclass(frozen=True)
class Genotype:
    """Both kinds of cells of a network.

    Attributes:
        normal: at one resolution.
        reduction: halves the resolution: its edges from states 0 and 1 have stride 2.
    """

    normal: CellPlan
    reduction: CellPlan


GENOTYPES: dict[str, Genotype] = {
    "darts": Genotype(
        normal=CellPlan(
            nodes=(
                (("sep3", 0), ("sep3", 1)),
                (("sep3", 0), ("sep3", 1)),
                (("sep3", 1), ("skip", 0)),
                (("skip", 0), ("dil3", 2)),
            ),
            output=(2, 3, 4, 5),
        ),
        reduction=CellPlan(
            nodes=(
                (("max", 0), ("max", 1)),
                (("skip", 2), ("max", 1)),
                (("max", 0), ("skip", 2)),
                (("skip", 2), ("max", 1)),
            ),
            output=(2, 3, 4, 5),
        ),
    ),
    "darts_v1": Genotype(
        normal=CellPlan(
            nodes=(
                (("sep3", 1), ("sep3", 0)),
                (("skip", 0), ("sep3", 1)),
                (("skip", 0), ("sep3", 1)),
                (("sep3", 0), ("skip", 2)),
            ),
            output=(2, 3, 4, 5),
        ),
        reduction=CellPlan(
            nodes=(
                (("max", 0), ("max", 1)),
                (("skip", 2), ("max", 0)),
                (("max", 0), ("skip", 2)),
                (("skip", 2), ("avg", 0)),
            ),
            output=(2, 3, 4, 5),
        ),
    ),
    "amoebanet": Genotype(
        normal=CellPlan(
            nodes=(
                (("avg", 0), ("max", 1)),
                (("sep3", 0), ("sep5", 2)),
                (("sep3", 0), ("avg", 3)),
                (("sep3", 1), ("skip", 1)),
                (("skip", 0), ("avg", 1)),
            ),
            output=(4, 5, 6),
        ),
        reduction=CellPlan(
            nodes=(
                (("avg", 0), ("sep3", 1)),
                (("max", 0), ("sep7", 2)),
                (("sep7", 0), ("avg", 1)),
                (("max", 0), ("max", 1)),
                (("c7x1", 0), ("sep3", 5)),
            ),
            output=(3, 4, 6),
        ),
    ),
    "nasnet_a": Genotype(
        normal=CellPlan(
            nodes=(
                (("sep5", 1), ("sep3", 0)),
                (("sep5", 0), ("sep3", 0)),
                (("avg", 1), ("skip", 0)),
                (("avg", 0), ("avg", 0)),
                (("sep3", 1), ("skip", 1)),
            ),
            output=(2, 3, 4, 5, 6),
        ),
        reduction=CellPlan(
            nodes=(
                (("sep5", 1), ("sep7", 0)),
                (("max", 1), ("sep7", 0)),
                (("avg", 1), ("sep5", 0)),
                (("skip", 3), ("avg", 2)),
                (("sep3", 2), ("max", 1)),
            ),
            output=(4, 5, 6),
        ),
    ),
}
"""Liu et al. 2019 (second order, and first order as `darts_v1`), Real et al. 2019 and Zoph et al. 2018: the cells of
DARTS's released code, which is where Hoffer et al. 2020 have theirs from."""


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


class Cell(nn.Module):
    """Cell of a searched network.

    Drop path (`seqba.nn.DropPath`) is behind every edge but identities, and each edge draws for itself.

    Args:
        plan: what it computes.
        inputs: channels of the cell before the last, and of the last one.
        channels: C, of each of its states.
        reduces: whether its edges from states 0 and 1 have stride 2.
        follows_reduction: whether the last cell was a reduction, and the cell before it so of twice the resolution.
        norm: makes a norm for a number of channels.
        drop_path: probability of dropping the result of an edge for a row.

    Attributes:
        outputs: number of its output's channels, C for each state of `plan.output`.

    Shape:
        (R, inputs[0], H, W), or 2H and 2W after a reduction, and (R, inputs[1], H, W) → (R, outputs, H, W), or H/2 and
        W/2 if it is a reduction itself.

    Source: Liu et al. 2019, section 2.1.
    """

    def __init__(
        self,
        plan: CellPlan,
        inputs: tuple[int, int],
        channels: int,
        *,
        reduces: bool,
        follows_reduction: bool,
        norm: Norm,
        drop_path: float,
    ) -> None:
        super().__init__()
        self.plan = plan
        self.outputs = channels * len(plan.output)
        before = FactorizedReduce if follows_reduction else _narrow
        self.entrances = nn.ModuleList([before(inputs[0], channels, norm), _narrow(inputs[1], channels, norm)])
        self.edges = nn.ModuleList()
        for name, state in (edge for node in plan.nodes for edge in node):
            operation = OPERATIONS[name](channels, 2 if reduces and state < 2 else 1, norm)
            is_identity = isinstance(operation, nn.Identity)
            self.edges.append(operation if is_identity else nn.Sequential(operation, DropPath(drop_path)))

    def forward(self, before: Tensor, last: Tensor) -> Tensor:
        """Output of the cell, from those of the two cells before it."""
        states = [entrance(x) for entrance, x in zip(self.entrances, (before, last), strict=True)]
        edges = iter(self.edges)
        for (_, first), (_, second) in self.plan.nodes:
            states.append(next(edges)(states[first]) + next(edges)(states[second]))
        return torch.cat([states[state] for state in self.plan.output], dim=1)


class Stage(nn.Module):
    """Cells one after the other, each of which reads the outputs of the two before it.

    Args:
        cells: in order, at least one.

    Shape:
        As the cells'; the outputs of the cell before the last, of the last and of the first one are returned.
    """

    def __init__(self, cells: Sequence[Cell]) -> None:
        super().__init__()
        self.cells = nn.ModuleList(cells)

    def forward(self, before: Tensor, last: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Outputs of the last two cells, and of the first, from those of the two cells before the stage."""
        first, *others = self.cells
        opening = first(before, last)
        before, last = last, opening
        for cell in others:
            before, last = last, cell(before, last)
        return before, last, opening


class EvolvedNetwork(nn.Module):
    """A 3×3 convolution with norm, cells, average, linear layer; at a third and two thirds the cell is a reduction.

    In training an auxiliary head reads what the second reduction gives: relu, an average over 5×5, 1×1 convolution to
    128 channels, 2×2 convolution to 768, each with norm and relu, and a linear layer. It is in the weights, but not in
    the number of parameters that papers give.

    Args:
        classes: number of classes.
        genotype: of the cells.
        image_size: side of the square pictures, in pixels: a multiple of 4, and with an auxiliary head one of
            `AUXILIARY_SIDES`.
        init_channels: F: the states of a cell have F channels, 2·F from the first reduction on, 4·F from the second.
        layers: number of cells, at least 3.
        norm: makes a norm for a number of channels.
        drop_path: probability of dropping the result of an operation that isn't the identity.
        auxiliary_weight: what the auxiliary head's loss is multiplied by; 0 for a network without this head.

    Shape:
        images (R, 3, H, W), floating → logits (R, classes); in training `AuxiliaryLogits` where there is the second
        head. Manifold mixup mixes the images (place 0), or both inputs of the first reduction (1) or of the second (2).

    Raises:
        ValueError: for sizes that can't be, and for images that aren't (R, 3, H, W) or of `image_size`.

    Initial weights: the framework's own, as in the released code.

    Source: Liu et al. 2019, section 3.2 and appendix A.2, and its released code; Hoffer et al. 2020, tables 2 and 4.
    """

    def __init__(
        self,
        classes: int,
        genotype: Genotype,
        *,
        image_size: int = 32,
        init_channels: int = 36,
        layers: int = 20,
        norm: Norm = nn.BatchNorm2d,
        drop_path: float = 0.2,
        auxiliary_weight: float = 0.4,
    ) -> None:
        super().__init__()
        _check_sizes(image_size, init_channels, layers, auxiliary_weight)
        self.image_size = image_size
        self.auxiliary_weight = auxiliary_weight
        reductions = (layers // 3, 2 * layers // 3)
        channels, inputs = init_channels, (3 * init_channels, 3 * init_channels)
        self.stem = sequence({"conv": convolution(3, inputs[1], 3), "norm": norm(inputs[1])})
        cells: list[Cell] = []
        for number in range(layers):
            reduces = number in reductions
            channels *= 2 if reduces else 1
            cell = Cell(
                genotype.reduction if reduces else genotype.normal,
                inputs,
                channels,
                reduces=reduces,
                follows_reduction=number - 1 in reductions,
                norm=norm,
                drop_path=drop_path,
            )
            cells.append(cell)
            inputs = (inputs[1], cell.outputs)
        bounds = (0, *reductions, layers)
        self.stages = nn.ModuleList([Stage(cells[start:end]) for start, end in itertools.pairwise(bounds)])
        middle = cells[reductions[1]].outputs
        self.auxiliary = _auxiliary_head(middle, classes, norm) if auxiliary_weight else None
        self.head = average_head(inputs[1], classes)
        nn.utils.convert_conv2d_weight_memory_format(self, torch.channels_last)

    def forward(self, images: Tensor, mixing: Mixes | None = None) -> Tensor | AuxiliaryLogits:
        """Images (R, 3, H, W) → logits (R, classes), in training those of both heads."""
        check_images(images, self.image_size)
        x = images.contiguous(memory_format=torch.channels_last)
        before = last = opening = self.stem(x if mixing is None else mixing.at(x, 0))
        for number, stage in enumerate(self.stages):
            if mixing is not None and number > 0:
                before, last = mixing.at(before, number), mixing.at(last, number)
            before, last, opening = stage(before, last)
        logits: Tensor = self.head(last)
        if self.auxiliary is None or not self.training:
            return logits
        return AuxiliaryLogits(logits, self.auxiliary(opening), self.auxiliary_weight)


def _narrow(inputs: int, channels: int, norm: Norm) -> nn.Module:
    return sequence({"relu": nn.ReLU(), "conv": convolution(inputs, channels, 1), "norm": norm(channels)})


def _auxiliary_head(inputs: int, classes: int, norm: Norm) -> nn.Sequential:
    """(R, inputs, S, S) → logits (R, classes), for S of 8 to 10, of which the average leaves 2×2."""
    return sequence(
        {
            "relu": nn.ReLU(),
            "pool": nn.AvgPool2d(5, stride=3, count_include_pad=False),
            "narrow": conv_norm_relu(convolution(inputs, 128, 1), norm),
            "whole": conv_norm_relu(nn.Conv2d(128, 768, 2, bias=False), norm),
            "flatten": nn.Flatten(),
            "linear": nn.Linear(768, classes),
        }
    )


def _check_sizes(image_size: int, init_channels: int, layers: int, auxiliary_weight: float) -> None:
    if layers < 3 or init_channels < 1:
        raise ValueError(
            f"layers is {layers} and init_channels {init_channels}; there are at least 3 cells, of 1 channel or more"
        )
    if image_size < 4 or image_size % 4:
        raise ValueError(f"image_size is {image_size}; it must be a multiple of 4, as two reductions halve it")
    if auxiliary_weight and image_size not in AUXILIARY_SIDES:
        raise ValueError(
            f"image_size is {image_size}; the auxiliary head needs one of {', '.join(map(str, AUXILIARY_SIDES))}, "
            "without it (auxiliary_weight 0) every multiple of 4 will do"
        )
