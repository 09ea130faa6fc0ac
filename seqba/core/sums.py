"""Sums over the passes of an update: losses and weights, added up here and over the ranks, and divided once."""

from __future__ import annotations

import math
import numbers
import operator
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from seqba.core.finish import gathered
from seqba.core.sharded import local_part
from seqba.core.spread import GradientExchange, Ranks

Loss = Tensor | tuple[Tensor, "Tensor | float"] | tuple[Tensor, "Tensor | float", Mapping[str, Tensor]]

WEIGHT_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Step:
    """What an update's passes came to.

    Attributes:
        loss: mean loss over the grid: the sum over cells divided by `weight`.
        weight: what the sum was divided by: the copies × the loss function's weights (tokens, images), or the number
            of cells where the loss function returns means.
        extras: further sums that the loss function returned, divided likewise.
        notes: the caller's own numbers, added up over the ranks.
    """

    loss: float
    weight: float
    extras: dict[str, float] = field(default_factory=dict)
    notes: dict[str, float] = field(default_factory=dict)


class Sums:
    """Adds up losses and weights, and scales each pass's loss by one over the weight of the whole grid.

    Where other ranks have a part of the grid, its weight isn't known before the all-reduce; nothing is scaled until it.
    """

    def __init__(self, weight: float | None, cells: int, *, divides: bool) -> None:
        self.total_weight = weight
        self.cells = cells
        self.divides = divides
        self.weight_is_known = weight is not None
        self.weight = 0.0
        self.loss: Tensor | None = None
        self.extras: dict[str, Tensor] = {}

    def add(self, loss: Loss, copies_in_pass: int) -> Tensor:
        """Takes a pass's loss and returns what its backward starts from."""
        total, weight, extras = _unpack(loss, copies_in_pass)
        if self.total_weight is None:
            self.total_weight = weight * (self.cells / copies_in_pass)
        self.weight += weight
        self.loss = total.detach() if self.loss is None else self.loss + total.detach()
        for name, value in extras.items():
            self.extras[name] = self.extras[name] + value.detach() if name in self.extras else value.detach()
        if not self.divides:
            return total
        if isinstance(loss, Tensor) and weight == self.total_weight:
            return loss  # one pass of means: an ordinary step, to the last bit
        return total / self.total_weight

    def add_nothing(self, loss: Loss) -> Tensor:
        """Takes note of what the loss function reports, and returns zero times its loss."""
        total, _, extras = _unpack(loss, 1)
        self.loss = torch.zeros_like(total) if self.loss is None else self.loss
        for name, value in extras.items():
            self.extras.setdefault(name, torch.zeros_like(value))
        return total * 0

    def step(self, notes: Mapping[str, float]) -> Step:
        """The means over the grid."""
        weight, loss = self._checked()
        return Step(
            loss=float(loss) / weight,
            weight=weight,
            extras={name: float(value) / weight for name, value in self.extras.items()},
            notes=dict(notes),
        )

    def step_of_all(
        self, ranks: Ranks, exchange: GradientExchange, model: nn.Module, notes: Mapping[str, float]
    ) -> Step:
        """Adds up gradients, losses and weights over the ranks, and divides once: the means over the grid of all."""
        own_weight, own_loss = self._checked()
        parameters = trained(model)
        reached = [float(parameter.grad is not None) for parameter in parameters]
        sums = torch.stack([value.double() for value in (own_loss, *self.extras.values())])
        told = torch.cat([sums, sums.new_tensor([own_weight, *notes.values(), *reached])])
        exchange.add_up()
        ranks.add_up([*gathered(model), told])
        sent = iter(told.tolist())
        loss = next(sent)
        extras = {name: next(sent) for name in self.extras}
        weight = next(sent)
        noted = {name: next(sent) for name in notes}
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        torch._foreach_div_([local_part(gradient) for gradient in gradients], weight)
        for parameter, count in zip(parameters, sent, strict=True):
            if not count:
                parameter.grad = None
        means = {name: value / weight for name, value in extras.items()}
        return Step(loss=loss / weight, weight=weight, extras=means, notes=noted)

    def _checked(self) -> tuple[float, Tensor]:
        weight = self.total_weight
        if weight is None or self.loss is None:
            raise ValueError("an update needs at least one shard")
        if abs(self.weight - weight) > WEIGHT_TOLERANCE * weight:
            told = "the grid's weight was given as" if self.weight_is_known else "the first pass came to"
            raise ValueError(
                f"{told} {weight:g}, but the passes add up to {self.weight:g}: a weight may not depend on the noise, "
                "and a grid's is copies × the sum over shards"
            )
        return weight, self.loss


def trained(model: nn.Module) -> list[nn.Parameter]:
    """The parameters that have a gradient, in the order of the model."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def _unpack(loss: Loss, copies_in_pass: int) -> tuple[Tensor, float, Mapping[str, Tensor]]:
    """Any of the three forms of a loss → (sum, weight, further sums); a mean counts one per copy."""
    if isinstance(loss, Tensor):
        _check_sum(loss)
        return loss * copies_in_pass, float(copies_in_pass), {}
    if not isinstance(loss, tuple) or len(loss) not in (2, 3):
        raise ValueError(f"{_FORMS}, not {described(loss)}{_hint(loss)}")
    _check_sum(loss[0])
    weight = _weight(loss[1])
    return loss[0], weight, _further_sums(loss[2]) if len(loss) == 3 else {}


_FORMS = "loss_fn must return a 0-dim tensor, (sum, weight), or (sum, weight, further sums)"


def _check_sum(loss: object) -> None:
    if not isinstance(loss, Tensor):
        raise ValueError(f"{_FORMS}, not {described(loss)} as its sum{_hint(loss)}")
    if loss.dim() != 0:
        raise ValueError(f"{_FORMS}, not {tuple(loss.shape)}, which is {described(loss)}")
    if not loss.is_floating_point():
        raise ValueError(f"{_FORMS}, not {described(loss)}, which has no gradient")
    if not loss.requires_grad:
        raise ValueError("the loss that loss_fn returned has no gradient: it was detached, or made under no_grad")


def _weight(weight: object) -> float:
    if isinstance(weight, bool) or not isinstance(weight, (Tensor, numbers.Real)):
        raise TypeError(f"the weight that loss_fn returned is {described(weight)}; it must be a number")
    if isinstance(weight, Tensor) and weight.numel() != 1:
        raise ValueError(
            f"the weight that loss_fn returned is {described(weight)}; it must be a number: (sum, weight) says what "
            "the sum is divided by, not what the model put out"
        )
    value = float(weight)
    if not 0 < value < math.inf:
        raise ValueError(f"loss_fn returned the weight {value}; it must be positive")
    return value


def _further_sums(sums: object) -> Mapping[str, Tensor]:
    if not isinstance(sums, Mapping):
        raise TypeError(f"the further sums that loss_fn returned are {described(sums)}; they must be a dict")
    for name, value in sums.items():
        if not isinstance(value, Tensor) or value.numel() != 1:
            raise TypeError(f"the further sum {name!r} that loss_fn returned is {described(value)}, not a 0-dim tensor")
    return sums


def _hint(loss: object) -> str:
    if isinstance(loss, Mapping) and "loss" in loss:
        return ": return its 'loss'"
    return ": leave .item() out, which has no gradient" if isinstance(loss, float) else ""


def described(value: object) -> str:
    """A value in a message: its type, and its shape or the value itself where that is short."""
    kind = type(value).__name__
    if isinstance(value, Tensor):
        return f"a {str(value.dtype).removeprefix('torch.')} tensor of shape {tuple(value.shape)}"
    if isinstance(value, Mapping):
        return f"a {kind} with keys {', '.join(map(repr, value)) or 'of nothing'}"[:200]
    if isinstance(value, (tuple, list)):
        return f"a {kind} of {len(value)}"
    return "None" if value is None else f"{value!r} (a {kind})"[:200]


def whole_number(name: str, value: object) -> int:
    """An argument that counts or numbers something: any whole number, of any library.

    Raises:
        TypeError: for anything else, naming it.
    """
    try:
        if isinstance(value, bool):
            raise TypeError
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"{name} must be a whole number, not {described(value)}") from None
