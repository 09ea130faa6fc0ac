"""Rows without padding: a (B, T) grid of tokens ↔ the N tokens that are there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from seqba.core import current_noise
from seqba.nn.kernels.attention import HeadLayout
from seqba.nn.kernels.linear import gathered_linear, linear

CopyRows = Sequence[int] | None
"""How many packed rows each copy in a pass has; None where all have as many."""


class Packing:
    """Positions of the tokens in a padded (B, T) grid, and conversion between the grid and the tokens alone.

    Token-wise layers work on packed (N, D) rows, so that no arithmetic is spent on padding; attention works on the
    padded (B, T, D) grid. Packed rows are in row-major order of the grid: copies stay contiguous slices.

    Args:
        tokens: (B, T) int64, padded on the right.
        pad: the id of padding.

    Attributes:
        mask: (B, T) bool, True where a token is.
        index: (N,) int64, the tokens' flat positions in the grid; None when nothing is padded.
        positions: (N,) int64, each token's position in its row, from 0.
        copy_rows: how many of the tokens each copy in the pass has: dropout on packed rows draws by it. None where all
            have as many.
    """

    def __init__(self, tokens: Tensor, pad: int) -> None:
        self.rows, self.length = tokens.shape
        self.mask = tokens != pad
        flat = self.mask.flatten().nonzero().squeeze(1)
        self.index = flat if flat.numel() < tokens.numel() else None
        self.positions = flat % self.length
        noise = current_noise()
        self.copy_rows: CopyRows = None if noise is None else noise.part_rows(self.mask)
        self._layouts: dict[int, HeadLayout] = {}

    def pack(self, padded: Tensor) -> Tensor:
        """(B, T, ...) → (N, ...)."""
        grid = padded.reshape(self.rows * self.length, *padded.shape[2:])
        if self.index is None:
            return grid
        packed: Tensor = _Pack.apply(grid, self.index)  # type: ignore[no-untyped-call]
        return packed

    def pad(self, packed: Tensor) -> Tensor:
        """(N, D) → (B, T, D), zeros in the padding."""
        if self.index is not None:
            packed = _Pad.apply(packed, self.index, self.rows * self.length)  # type: ignore[no-untyped-call]
        return packed.view(self.rows, self.length, packed.shape[1])

    def packed_linear(self, padded: Tensor, layer: nn.Linear) -> Tensor:
        """A linear layer on the tokens of padded (B, T, D) → packed (N, E), keeping the padded rows alone."""
        grid = padded.reshape(self.rows * self.length, padded.shape[2])
        if self.index is None:
            return linear(grid, layer)
        return gathered_linear(grid, self.index, layer)

    def head_layout(self, heads: int) -> HeadLayout:
        """Where the heads of packed rows stand in a grid of them; all layers share it."""
        if heads not in self._layouts:
            self._layouts[heads] = HeadLayout(self.mask, heads, is_padded=self.index is not None)
        return self._layouts[heads]

    def key_mask(self) -> Tensor | None:
        """(B, 1, 1, T) bool for attention over these tokens as keys; None when nothing is padded."""
        return None if self.index is None else self.mask[:, None, None, :]


class _Pack(torch.autograd.Function):
    """`index_select`, whose own backward would add up rows where copying them is enough."""

    @staticmethod
    def forward(ctx: Any, grid: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(index)
        ctx.size = grid.shape[0]
        return grid.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (index,) = ctx.saved_tensors
        return _scatter(grads[0], index, ctx.size), None


class _Pad(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, packed: Tensor, index: Tensor, size: int) -> Tensor:
        ctx.save_for_backward(index)
        return _scatter(packed, index, size)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (index,) = ctx.saved_tensors
        return grads[0].index_select(0, index), None, None


def _scatter(packed: Tensor, index: Tensor, size: int) -> Tensor:
    return packed.new_zeros(size, *packed.shape[1:]).index_copy_(0, index, packed)
