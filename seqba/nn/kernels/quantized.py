"""Linear layers in int8 for translation on a CPU: weights quantised once, activations row by row."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from seqba.nn.kernels.prepacked import PackedLayer
from seqba.nn.kernels.products import HAS_ONEDNN

ZERO = 128
"""Zero point of activations: oneDNN's fast kernels want them unsigned."""

ACTIVATION_LEVELS = 127
SMALLEST_LARGEST = 1e-30
"""Taken for the largest number of a row of zeros."""


class QuantizedLinear(PackedLayer):
    """x·Wᵀ + b with W in int8, one scale for each output, and x in 8 bits, one scale for each row.

        W ≈ s·W₈,  x ≈ r·x₈,  y = r·s·(x₈·W₈ᵀ) + b

    The largest number of a row, of either, is 127 levels. Integers are summed exactly, and a row's scale is its own, so
    that the result for a row doesn't depend on its company in the batch. There is no gradient through this layer.

    Args:
        weight: (E, D) float32. What happens to it later changes nothing here.
        bias: (E,) or None.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        levels = weight_levels()
        scale = _largest(weight.detach()) / levels
        self.packed = _pack((weight.detach() / scale).round_().to(torch.int8))
        self.scale = scale.squeeze(1)
        self.zero_points = torch.zeros(len(self.scale), dtype=torch.int32)  # the operator wants them
        self.bias = bias

    def forward(self, x: Tensor) -> Tensor:
        """(N, D) float32 → (N, E) float32."""
        scale = _largest(x).mul_(1 / ACTIVATION_LEVELS)
        levels = (x / scale).round_().to(torch.int8).view(torch.uint8).bitwise_xor_(ZERO)  # plus 128
        result = _product(levels, self.packed, self.scale, self.zero_points).mul_(scale)
        return result if self.bias is None else result.add_(self.bias)


def can_quantize() -> bool:
    """Whether this torch has the products of `QuantizedLinear` for this machine: those of oneDNN, on x86."""
    return HAS_ONEDNN and hasattr(torch.ops.onednn, "qlinear_pointwise")


@functools.cache
def weight_levels() -> int:
    """Levels of a weight on either side of zero: 127, or 63 on a processor without VNNI.

    There a kernel adds two products in 16 bits, which 2·255·127 would overflow without a word and 2·255·63 does not.
    One such product tells, whatever oneDNN was told of the processor (ONEDNN_MAX_CPU_ISA).
    """
    width = 64
    activations = torch.full((width, width), 255, dtype=torch.uint8)
    weight = torch.full((width, width), 127, dtype=torch.int8)
    ones, zeros = torch.ones(width), torch.zeros(width, dtype=torch.int32)
    exact = width * (255 - ZERO) * 127
    return 127 if bool((_product(activations, _pack(weight), ones, zeros) == exact).all()) else 63


def _largest(rows: Tensor) -> Tensor:
    """The largest absolute value of each row, (N, 1), above zero; no absolute values are written for it."""
    largest = torch.maximum(rows.amax(1, keepdim=True), rows.amin(1, keepdim=True).neg_())
    return largest.clamp_min_(SMALLEST_LARGEST)


def _pack(weight: Tensor) -> Tensor:
    """An int8 weight (E, D) in the order in which oneDNN's kernels read it."""
    packed: Tensor = torch.ops.onednn.qlinear_prepack(weight, None)
    return packed


def _product(levels: Tensor, packed: Tensor, scale: Tensor, zero_points: Tensor) -> Tensor:
    """(x₈ − 128)·W₈ᵀ times the scales of the outputs: (N, D) uint8 → (N, E) float32."""
    result: Tensor = torch.ops.onednn.qlinear_pointwise(
        levels, 1.0, ZERO, packed, scale, zero_points, None, 1.0, 0, torch.float32, "none", [], ""
    )
    return result
