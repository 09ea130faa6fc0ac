"""Networks of searched cells for small pictures: DARTS, AmoebaNet-A and NASNet-A."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from seqba.models.cell_operations import OPERATIONS, FactorizedReduce, narrow
from seqba.models.classifier import (
    Mixes,
    Norm,
    average_head,
    check_images,
    conv_norm_relu,
    convolution,
    sequence,
)
from seqba.models.genotypes import CellPlan, Genotype
from seqba.nn import DropPath
from seqba.nn.auxiliary import AuxiliaryLogits

AUXILIARY_SIDES = (32, 36, 40)
"""Sides of pictures, in pixels, that the auxiliary head makes one position of."""


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
        before = FactorizedReduce if follows_reduction else narrow
        self.entrances = nn.ModuleList([before(inputs[0], channels, norm), narrow(inputs[1], channels, norm)])
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
