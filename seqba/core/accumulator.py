"""Sums over the passes of an update: losses and weights, added up here and over the group, and divided once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from seqba.group import ALONE, Exchange, Group
from seqba.modules.update_hooks import gathered
from seqba.modules.walk import local_part, trained_parameters
from seqba.values import Loss, loss_parts, summand

AlsoRead = Callable[[], Sequence[Tensor]]

WEIGHT_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Step:
    """Metrics of one update.

    Attributes:
        loss: mean loss over the grid: the sum over cells divided by `weight`.
        weight: what the sum was divided by: the copies × the loss function's weights (tokens, images), or the number
            of cells where the loss function returns means.
        sums: further sums that the loss function returned, over the grid.
        also: the caller's own numbers, added up over the group.
        read: values of the caller's own tensors, made of the finished gradient.
    """

    loss: float
    weight: float
    sums: dict[str, float] = field(default_factory=dict)
    also: tuple[float, ...] = ()
    read: tuple[float, ...] = ()


class Accumulator:
    """Adds up losses and weights, and scales each pass's loss by one over the weight of the whole grid.

    Where other processes have a part of the grid, its weight isn't known before theirs are added up; nothing is scaled
    until then.
    """

    def __init__(self, weight: float | None, cells: int, group: Group) -> None:
        self.total_weight = weight
        self.cells = cells
        self.group = group
        self.weight_is_known = weight is not None
        self.weight = 0.0
        self.loss: Tensor | None = None
        self.sums: dict[str, Tensor] = {}

    def add(self, loss: Loss, copies_in_pass: int) -> Tensor:
        """Takes a pass's loss and returns what its backward starts from."""
        total, weight, sums = loss_parts(loss, copies_in_pass, may_be_zero=self.weight_is_known)
        if self.total_weight is None:
            self.total_weight = weight * (self.cells / copies_in_pass)
        self.weight += weight
        self.loss = summand(total) if self.loss is None else self.loss + summand(total)
        for name, value in sums.items():
            self.sums[name] = self.sums[name] + summand(value) if name in self.sums else summand(value)
        if self.group is not ALONE:
            return total
        if isinstance(loss, Tensor) and weight == self.total_weight:
            return loss  # one pass of means: an ordinary step, to the last bit
        return total / self.total_weight

    def add_dummy(self, loss: Loss) -> Tensor:
        """Notes which sums the loss function of a dummy pass reports, and returns zero times its loss."""
        total, _, sums = loss_parts(loss, 1, may_be_zero=self.weight_is_known)
        self.loss = torch.zeros_like(summand(total)) if self.loss is None else self.loss
        for name, value in sums.items():
            self.sums.setdefault(name, torch.zeros_like(summand(value)))
        return total * 0

    def step(
        self, model: nn.Module, exchange: Exchange, also: Sequence[float], also_read: AlsoRead | None = None
    ) -> Step:
        """Adds up gradients, losses and weights over the group, and divides once: the metrics of the whole grid.

        Raises:
            ValueError: for no micro-batch, passes whose weights don't add up to the grid's, or no weight on any rank.
        """
        weight, loss = self._checked()
        further = also_read or tuple
        if self.group is ALONE:
            total, *values = read_numbers([loss, *self.sums.values(), *further()])
            sums = dict(zip(self.sums, values, strict=False))
            return Step(total / weight, weight, sums, tuple(map(float, also)), tuple(values[len(sums) :]))
        parameters = trained_parameters(model)
        reached = [float(parameter.grad is not None) for parameter in parameters]
        own = torch.stack([value.double() for value in (loss, *self.sums.values())])
        told = torch.cat([own, own.new_tensor([weight, *also, *reached])])
        exchange.add_up([*gathered(model), told])
        numbers = iter(told.tolist())
        total = next(numbers)
        sums = {name: next(numbers) for name in self.sums}
        weight = next(numbers)
        if not weight > 0:
            raise ValueError(f"the grid's weight is {weight:g} over all ranks; it must be positive")
        added = tuple(next(numbers) for _ in also)
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        torch._foreach_div_([local_part(gradient) for gradient in gradients], weight)
        for parameter, count in zip(parameters, numbers, strict=True):
            if not count:
                parameter.grad = None
        return Step(total / weight, weight, sums, added, tuple(read_numbers(further())))

    def _checked(self) -> tuple[float, Tensor]:
        weight = self.total_weight
        if weight is None or self.loss is None:
            raise ValueError("an update needs at least one micro-batch")
        if abs(self.weight - weight) > WEIGHT_TOLERANCE * weight:
            told = "the grid's weight was given as" if self.weight_is_known else "the first pass came to"
            raise ValueError(
                f"{told} {weight:g}, but the passes add up to {self.weight:g}: a weight may not depend on the noise, "
                "and a grid's is copies × the sum over micro-batches"
            )
        return weight, self.loss


def read_numbers(tensors: Sequence[Tensor]) -> list[float]:
    """Values of 0-dim tensors; of those on a GPU all at once, since the host waits for it each time."""
    if len({(tensor.device, tensor.dtype) for tensor in tensors}) != 1 or tensors[0].device.type == "cpu":
        return [float(tensor) for tensor in tensors]
    values: list[float] = torch.stack([tensor.detach().reshape(()) for tensor in tensors]).cpu().tolist()
    return values
