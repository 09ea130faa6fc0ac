"""The variance split of an update that is made anyway, from its looped passes as their gradients add up."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from seqba.noise.context import current_noise
from seqba.statistics.split import solve_sums

Batch = TypeVar("Batch")


@dataclass(frozen=True)
class CellSplit:
    """Estimates from the S × M cells of one update, at the size of a micro-batch; None for what S or M leaves unseen.

    Unbiased, and very noisy for few cells: take means of many updates, and ratios only of means.

    Attributes:
        signal: |G|², the squared norm of the expected gradient; needs S ≥ 2.
        between: variance of a micro-batch's gradient by its examples: S_b/B for B examples; needs S ≥ 2 and M ≥ 2.
        noise: variance by the noise of one copy: S_w/B; needs M ≥ 2.
        total: both together, (S_b + S_w)/B, what one copy of a micro-batch has; needs S ≥ 2.
    """

    signal: float | None
    between: float | None
    noise: float | None
    total: float | None

    @classmethod
    def of_sums(cls, q1: float, q2: float, q3: float, micro_batches: int, copies: int) -> CellSplit:
        """The split that the three sums of `SplitSums` give, micro-batches in the place of examples."""
        if micro_batches > 1 and copies > 1:
            signal, between, noise = solve_sums(q1, q2, q3, groups=micro_batches, members=copies)
            return cls(signal, between, noise, between + noise)
        if micro_batches > 1:
            total = (q1 - q3) * micro_batches / (micro_batches - 1)
            return cls(q3 - total / micro_batches, None, None, total)
        if copies > 1:
            return cls(None, None, (q1 - q2) * copies / (copies - 1), None)
        return cls(None, None, None, None)


class CellWatch:
    """Sees the gradient of each cell of an update, by what a pass has added to `.grad` when the next one begins.

    Wrap the loss function, make the update with `grid_gradient` under the plan "looped" in one process, and ask for the
    split before anything else touches `.grad`. The update's gradient is the same, and no pass is added: the work beside
    it is three elementwise operations on the parameters and one norm for each cell, a second norm for each micro-batch,
    and two buffers of the parameters' size while it lasts.

    Args:
        model: whose parameters are trained. What is in their `.grad` already counts for nothing.
    """

    def __init__(self, model: nn.Module) -> None:
        self._trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._before = [_gradient(parameter).clone() for parameter in self._trained]  # .grad when the pass began
        is_fresh = all(parameter.grad is None for parameter in self._trained)
        self._first = None if is_fresh else [gradient.clone() for gradient in self._before]
        self._own = [torch.zeros_like(parameter) for parameter in self._trained]  # added by this micro-batch's cells
        self._cells: list[Tensor] = []  # ‖g‖² of each cell
        self._groups: list[Tensor] = []  # ‖Σ_m g‖² of each micro-batch
        self._micro_batch: int | None = None

    def watching(self, loss_fn: Callable[[nn.Module, Batch], Any]) -> Callable[[nn.Module, Batch], Any]:
        """The same loss function, which takes note of `.grad` whenever a pass begins."""

        def watched(model: nn.Module, batch: Batch) -> Any:
            noise = current_noise()
            if noise is None or len(noise.copies) != 1:
                raise ValueError("cells are seen one by one under the plan looped alone")
            self._end_cell(next_micro_batch=noise.micro_batch)
            return loss_fn(model, batch)

        return watched

    def split(self) -> CellSplit:
        """The split, once the last pass has run.

        Raises:
            ValueError: if there was none.
        """
        self._end_cell(next_micro_batch=None)
        if not self._cells:
            raise ValueError("no pass was seen")
        cells, groups = len(self._cells), len(self._groups)
        total = self._before if self._first is None else list(torch._foreach_sub(self._before, self._first))
        squares = torch.stack([*self._cells, *self._groups, _squared(total)]).tolist()
        # Each was divided by the weight of the whole grid, which is cells × the mean weight of a cell.
        q1, q2 = cells * math.fsum(squares[:cells]), groups * math.fsum(squares[cells:-1])
        return CellSplit.of_sums(q1, q2, squares[-1], groups, cells // groups)

    def _end_cell(self, *, next_micro_batch: int | None) -> None:
        """Takes the pass that has run into the sums."""
        if self._micro_batch is not None:
            gradients = [_gradient(parameter) for parameter in self._trained]
            torch._foreach_sub_(self._before, gradients)  # −g of this cell
            self._cells.append(_squared(self._before))
            torch._foreach_sub_(self._own, self._before)
            torch._foreach_copy_(self._before, gradients)
            if next_micro_batch != self._micro_batch:
                self._groups.append(_squared(self._own))
                torch._foreach_zero_(self._own)
        self._micro_batch = next_micro_batch


def _gradient(parameter: nn.Parameter) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.detach()


def _squared(parts: list[Tensor]) -> Tensor:
    """Σ x² over all elements, 0-dim float64, left on the device."""
    return torch.stack(torch._foreach_norm(parts)).double().square().sum()
