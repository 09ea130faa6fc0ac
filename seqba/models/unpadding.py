"""Rows without padding: a (B, T) grid of tokens ↔ the N tokens that are there."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from seqba.nn.kernels.attention import HeadLayout
from seqba.nn.kernels.places import places_of, with_spare_places
from seqba.nn.kernels.recurring import compiles_each_shape
from seqba.noise.context import current_noise

ALIGNED = 16
"""Numbers to whose multiples a GPU's attention wants rows of a bias padded."""

CopyRows = Sequence[int] | None
"""How many packed rows each copy in a pass has; None where all have as many."""


class Packing:
    """Positions of the tokens in a padded (B, T) grid, and conversion between the grid and the tokens alone.

    Token-wise layers work on packed (N, D) rows, so that no arithmetic is spent on padding; attention works on the
    padded (B, T, D) grid. Packed rows of tokens are in row-major order of the grid: copies stay contiguous slices.

    Products that are compiled for each number of rows get numbers that recur (`recurring_rows`): behind the tokens of
    each copy then stand *spare rows*, places of the grid that hold padding. They are computed like tokens and change
    nothing: no token attends to them, `without_spare` leaves them out of the loss, so that their gradients are zero,
    and dropout draws them last in their copy. Where the grid has less padding than that, all of it is taken.

    Args:
        tokens: (B, T) int64, padded on the right.
        pad: the id of padding.
        count: how many of the tokens aren't padding, so that no GPU has to be asked; None where it isn't known.
        dtype: of products of packed rows; None for no spare rows.

    Attributes:
        mask: (B, T) bool, True where a token is.
        index: (N,) int64, the flat positions of packed rows in the grid; None when these are all of it, in its order.
        positions: (N,) int64, the position of each in its row, from 0.
        copy_rows: how many packed rows each copy in the pass has: dropout on packed rows draws by it. None where all
            have as many.
    """

    def __init__(self, tokens: Tensor, pad: int, count: int | None = None, dtype: torch.dtype | None = None) -> None:
        self.rows, self.length = tokens.shape
        self.mask = tokens != pad
        noise = current_noise()
        places = places_of(self.mask, count)
        is_whole = len(places) == tokens.numel()
        self._tokens: Tensor | None = None
        if dtype is not None and not is_whole and compiles_each_shape(dtype, tokens.device):
            copies = 1 if noise is None or self.rows % len(noise.copies) else len(noise.copies)  # else not of this pass
            places, self._tokens = with_spare_places(self.mask, copies, dtype)
        self.index = None if is_whole else places
        self.positions = places % self.length
        self._biases: dict[torch.dtype, Tensor] = {}
        is_row = self.mask if self._tokens is None else _mask_of(places, like=self.mask)
        self.copy_rows: CopyRows = None if noise is None else noise.part_rows(is_row)
        self._layouts: dict[int, HeadLayout] = {}

    def without_spare(self, packed: Tensor) -> Tensor:
        """(N, D) → the rows of tokens alone, in row-major order of the grid."""
        if self._tokens is None:
            return packed
        tokens: Tensor = _Pack.apply(packed, self._tokens)  # type: ignore[no-untyped-call]
        return tokens

    def pack(self, padded: Tensor) -> Tensor:
        """(B, T, ...) → (N, ...)."""
        grid = padded.reshape(self.rows * self.length, *padded.shape[2:])
        if self.index is None:
            return grid
        packed: Tensor = _Pack.apply(grid, self.index)  # type: ignore[no-untyped-call]
        return packed

    def pad(self, packed: Tensor, *, blank: bool = True) -> Tensor:
        """(N, D) → (B, T, D), spare rows or zeros in the padding.

        Without `blank` a GPU leaves any finite numbers there.
        """
        if self.index is not None:
            whence = None if blank or packed.device.type == "cpu" else self.whence
            packed = _Pad.apply(packed, self.index, whence, self.rows * self.length)  # type: ignore[no-untyped-call]
        return packed.view(self.rows, self.length, packed.shape[1])

    @functools.cached_property
    def whence(self) -> Tensor:
        """Packed row of each place in the grid, (B·T,) int64; in the padding that of the token before it."""
        return self.mask.flatten().cumsum(0).sub_(1).clamp_(min=0)

    @functools.cached_property
    def ends(self) -> Tensor:
        """Beginnings of the packed rows, and the end of the last one: (B + 1,) int32."""
        return nn.functional.pad(self.mask.sum(1, dtype=torch.int32).cumsum(0, dtype=torch.int32), (1, 0))

    def head_layout(self, heads: int) -> HeadLayout:
        """Layout of the heads of packed rows in a grid of them; all layers share it."""
        if heads not in self._layouts:
            self._layouts[heads] = HeadLayout(self.mask, heads, self.index)
        return self._layouts[heads]

    def key_mask(self, dtype: torch.dtype | None = None) -> Tensor | None:
        """(B, 1, 1, T) for attention over these tokens as keys; None when nothing is padded.

        Booleans; or with the dtype of the scores, 0 and −∞, as a GPU's kernels add it.
        """
        if self.index is None:
            return None
        return (self.mask if dtype is None else self._bias(dtype))[:, None, None, :]

    def _bias(self, dtype: torch.dtype) -> Tensor:
        """(B, T), made once for all layers; rows begin at addresses that suit the kernels, or each would copy it."""
        if dtype not in self._biases:
            aligned = self.mask.new_zeros((self.rows, -(-self.length // ALIGNED) * ALIGNED), dtype=dtype)
            self._biases[dtype] = aligned[:, : self.length].masked_fill_(~self.mask, float("-inf"))
        return self._biases[dtype]

    def for_graph(self, *, stays_packed: bool) -> GraphRows:
        """Tensors that a compiled graph reads of it; whether attention takes its rows packed is a part of the graph."""
        return GraphRows(self.mask, self.index, self.ends, stays_packed)


@dataclass(frozen=True)
class GraphRows:
    """`Packing` as a compiled graph sees it: tensors, and torch's own operations on them, which a compiler fuses.

    Attributes:
        mask: (B, T) bool, True where a token is.
        index: see `Packing`.
        ends: see `Packing`.
        stays_packed: whether attention takes the rows packed.
    """

    mask: Tensor
    index: Tensor | None
    ends: Tensor
    stays_packed: bool
    copy_rows: ClassVar[CopyRows] = None  # masks have been drawn by them

    @property
    def length(self) -> int:
        """T."""
        return self.mask.shape[1]

    def pad(self, packed: Tensor, *, blank: bool = True) -> Tensor:
        """(N, D) → (B, T, D), zeros in the padding."""
        batch, length = self.mask.shape
        if self.index is not None:
            packed = packed.new_zeros(batch * length, packed.shape[1]).index_copy(0, self.index, packed)
        return packed.view(batch, length, packed.shape[1])

    def key_mask(self, dtype: torch.dtype | None = None) -> Tensor | None:
        """(B, 1, 1, T) bool for attention over these tokens as keys; None when nothing is padded."""
        return None if self.index is None else self.mask[:, None, None, :]


Rows = Packing | GraphRows
"""Where packed rows belong."""


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
    def forward(ctx: Any, packed: Tensor, index: Tensor, whence: Tensor | None, size: int) -> Tensor:
        ctx.save_for_backward(index)
        return _scatter(packed, index, size) if whence is None else packed.index_select(0, whence)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        (index,) = ctx.saved_tensors
        return grads[0].index_select(0, index), None, None, None


def _mask_of(places: Tensor, like: Tensor) -> Tensor:
    """True at these flat positions of a grid, bool of the shape of `like`."""
    mask = torch.zeros_like(like)
    mask.view(-1)[places] = True
    return mask


def _scatter(packed: Tensor, index: Tensor, size: int) -> Tensor:
    return packed.new_zeros(size, *packed.shape[1:]).index_copy_(0, index, packed)
