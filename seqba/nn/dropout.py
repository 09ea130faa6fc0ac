"""Dropout whose masks are keyed per copy inside an update, and ordinary outside one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from seqba.noise.context import current_noise
from seqba.random.masks import drop


class Dropout(nn.Module):
    """Zeroes each element with probability `p` and scales the rest, so that the mean stays: y = x·mask / (1 − p).

    Inside `merged_gradient` every element of every row has its own draw, keyed by (seed, update, micro-batch, copy,
    site); elsewhere in training it is `torch.nn.functional.dropout`, and in evaluation the identity. Inside an update p
    is rounded to a multiple of 1/65,536 and the scale uses the rounded p, so that the mean is kept exactly.

    Args:
        p: probability of dropping, in [0, 1).

    Shape:
        (k·R, ...) → the same; k copies in the pass, copy-major on dimension 0. Any floating dtype.

    Raises:
        ValueError: if p isn't in [0, 1), or dimension 0 isn't a multiple of the copies in the pass.

    Source: Srivastava et al. 2014; as the augmentation, Hoffer et al. 2020, section 4.3.
    """

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"dropout probability is {p}; it must be in [0, 1)")
        self.p = p

    @property
    def drops(self) -> bool:
        """Whether anything is dropped: in training, above a probability of zero."""
        return self.training and self.p > 0

    def forward(self, input: Tensor, rows: Sequence[int] | None = None) -> Tensor:
        """Drops elements of `input` (k·R, ...).

        Args:
            input: any floating tensor.
            rows: how many rows each copy of the pass has, where they have different numbers (`Noise.part_rows`).
        """
        if not self.drops:
            return input
        noise = current_noise()
        if noise is None:
            return nn.functional.dropout(input, self.p)
        return noise.drop(self, input, self.p, rows=rows)

    def add(self, residual: Tensor, input: Tensor, rows: Sequence[int] | None = None) -> Tensor:
        """Residual + dropout(input), both (k·R, ...): the end of a sublayer, in one kernel on a GPU."""
        noise = current_noise()
        if not self.drops or noise is None:
            dropped: Tensor = self(input, rows)
            return residual + dropped
        return noise.drop(self, input, self.p, residual, rows=rows)

    def draw(self, shape: Sequence[int], device: torch.device, rows: Sequence[int] | None = None) -> Tensor | None:
        """Draws the mask that the next forward of the pass would draw, for `drop` to drop by.

        So what follows draws nothing, as a compiled graph must not.

        Args:
            shape: of what will be dropped from.
            device: that it is on.
            rows: see `forward`.

        Returns:
            An int8 tensor of `shape`, 1 where kept; None where nothing is dropped.
        """
        noise = current_noise()
        if not self.drops or noise is None:
            return None
        # Detached from what it is a view of, whose sizes (the number of copies is one) would become a graph's.
        return noise.keep_mask(self, shape, self.p, device, rows=rows).detach()

    def drop(self, input: Tensor, kept: Tensor, residual: Tensor | None = None) -> Tensor:
        """Drops by a mask that `draw` returned, and adds.

        Args:
            input: any floating tensor.
            kept: its mask.
            residual: of the shape of `input`; None for nothing.
        """
        return drop(input, kept, self.p, residual)

    def extra_repr(self) -> str:
        """`p=0.1`."""
        return f"p={self.p}"


class LockedDropout(Dropout):
    """Dropout with one mask per row, held over time (variational dropout).

    Shape:
        (k·B, T, ...) → the same, batch first. The mask is (k·B, 1, ...): every row of every copy has its own, and all
        T positions of a row share it.

    Source: Gal & Ghahramani 2016; as in AWD-LSTM's released code (there with time on dimension 0).
    """

    def forward(self, input: Tensor, rows: Sequence[int] | None = None) -> Tensor:
        """Drops features of `input` (k·B, T, ...)."""
        if not self.drops:
            return input
        if input.dim() < 2:
            raise ValueError(f"LockedDropout needs (rows, time, ...), not {tuple(input.shape)}")
        shape = (input.shape[0], 1, *input.shape[2:])
        noise = current_noise()
        if noise is None:
            return input * nn.functional.dropout(input.new_ones(shape), self.p)
        return drop(input, noise.keep_mask(self, shape, self.p, input.device, rows=rows), self.p)

    def add(self, residual: Tensor, input: Tensor, rows: Sequence[int] | None = None) -> Tensor:
        """Residual + dropout(input)."""
        dropped: Tensor = self(input, rows)
        return residual + dropped
