"""Values of callers: whole numbers, what a loss function returns; and how a message describes any."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import TypeVar

import torch
from torch import Tensor

Batch = TypeVar("Batch")
Loss = Tensor | tuple[Tensor, "Tensor | float"] | tuple[Tensor, "Tensor | float", Mapping[str, Tensor]]
"""What a loss function returns: a mean, (sum, weight), or (sum, weight, further sums)."""


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


def number_of_copies(value: object) -> int:
    """A number of copies.

    Raises:
        TypeError: for what isn't a whole number.
        ValueError: below 1.
    """
    copies = whole_number("copies", value)
    if copies < 1:
        raise ValueError(f"copies is {copies}; it must be at least 1")
    return copies


def checked_batches(micro_batches: Sequence[Batch]) -> Sequence[Batch]:
    """The micro-batches of an update as they were given.

    Raises:
        TypeError: for a single batch in a dict, or a generator of batches.
    """
    if isinstance(micro_batches, Mapping) or not hasattr(micro_batches, "__getitem__"):
        raise TypeError(f"micro_batches must be a list of batches, not {described(micro_batches)}")
    return micro_batches


def loss_parts(
    loss: Loss, copies_in_pass: int, *, may_be_zero: bool = False
) -> tuple[Tensor, float, Mapping[str, Tensor]]:
    """Any of the three forms of a loss → (sum, weight, further sums); a mean counts one per copy.

    Args:
        loss: as a loss function returned it.
        copies_in_pass: how many copies it is of.
        may_be_zero: whether its weight may be 0, as of a micro-batch of padding alone beside others.

    Raises:
        ValueError: for a loss that isn't a 0-dim tensor with a gradient, or a weight that isn't positive.
        TypeError: for a weight or further sums of another type.
    """
    if isinstance(loss, Tensor):
        _check_sum(loss)
        return loss * copies_in_pass, float(copies_in_pass), {}
    if not isinstance(loss, tuple) or len(loss) not in (2, 3):
        raise ValueError(f"{_FORMS}, not {described(loss)}{_hint(loss)}")
    _check_sum(loss[0])
    weight = _weight(loss[1], may_be_zero=may_be_zero)
    return loss[0], weight, _further_sums(loss[2]) if len(loss) == 3 else {}


def summand(value: Tensor) -> Tensor:
    """A number to add up: of 16 bits in 32, where 256 losses are no more than one less, and many overflow."""
    value = value.detach()
    return value.float() if value.dtype in (torch.bfloat16, torch.float16) else value


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


def _weight(weight: object, *, may_be_zero: bool) -> float:
    if isinstance(weight, bool) or not isinstance(weight, (Tensor, Real)):
        raise TypeError(f"the weight that loss_fn returned is {described(weight)}; it must be a number")
    if isinstance(weight, Tensor) and weight.numel() != 1:
        raise ValueError(
            f"the weight that loss_fn returned is {described(weight)}; it must be a number: (sum, weight) says what "
            "the sum is divided by, not what the model put out"
        )
    value = float(weight)
    if not 0 < value < math.inf and not (may_be_zero and value == 0):
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
