"""Drop path: whole outputs of an operation are dropped for an example, by keyed draws."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from seqba.noise.context import current_noise
from seqba.random.masks import drop


class DropPath(nn.Module):
    """Zeroes all of a row with probability p and scales the other rows, so that the mean stays: y = x·m / (1 − p).

    Put behind each operation whose result is added to others, it leaves examples without that operation. Inside
    `merged_gradient` each row has one draw, keyed by (seed, update, micro-batch, copy, site), where every module of
    this class is a site; elsewhere in training the draws are those of `torch.nn.functional.dropout`, and in evaluation
    this is the identity. Inside an update p is rounded to a multiple of 1/65,536, as is the p of the scale.

    Args:
        p: probability of dropping, in [0, 1).

    Attributes:
        rise: share of `p` at each update, by the update's number alone; None for all of it always. Outside an update
            the probability is `p`.

    Shape:
        (k·R, ...) → the same; k copies in the pass, copy-major on dimension 0. Any floating dtype.

    Raises:
        ValueError: if p isn't in [0, 1), or dimension 0 isn't a multiple of the copies in the pass.

    Source: Larsson et al. 2017, "FractalNet"; on each operation of a cell, Zoph et al. 2018, "NASNet".
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"drop path probability is {p}; it must be in [0, 1)")
        self.p = p
        self.rise: Callable[[int], float] | None = None

    def forward(self, input: Tensor) -> Tensor:
        """Drops rows of `input` (k·R, ...)."""
        if not self.training or self.p == 0:
            return input
        shape = (len(input), *[1] * (input.dim() - 1))
        noise = current_noise()
        if noise is None:
            return input * nn.functional.dropout(input.new_ones(shape), self.p)
        p = self.p if self.rise is None else self.p * self.rise(noise.update)
        if p == 0:
            return input
        return drop(input, noise.keep_mask(self, shape, p, input.device), p)

    def extra_repr(self) -> str:
        """`p=0.2`."""
        return f"p={self.p}"


@dataclass(frozen=True)
class EpochRise:
    """Share that rises from 0 with each epoch: ⌊(update − 1) / epoch_updates⌋ / epochs, and 1 after all of them.

    Attributes:
        epoch_updates: updates of an epoch.
        epochs: after so many the share is 1.

    Raises:
        ValueError: for less than one update or epoch.

    Source: the released code of DARTS (Liu et al. 2019), where p is 0 throughout the first epoch.
    """

    epoch_updates: int
    epochs: int

    def __post_init__(self) -> None:
        """Refuses what is no number of updates or epochs."""
        if self.epoch_updates < 1 or self.epochs < 1:
            raise ValueError(f"epoch_updates is {self.epoch_updates} and epochs {self.epochs}; both are at least 1")

    def __call__(self, update: int) -> float:
        """Share at the 1-based `update`."""
        return min(1.0, max(0, update - 1) // self.epoch_updates / self.epochs)
