"""Content of `.grad` before an update, kept in case the update fails, and looked at while a loss is computed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager

import torch
from torch import nn
from torch.utils.weak import WeakIdKeyDictionary

from seqba.modules.walk import parameters_of

_LOOKS = 4
"""How many losses of a function are looked at: one that changes gradients does so from the beginning."""

# By identity: a model may define what it is equal to.
_looked: MutableMapping[nn.Module, Counter[object]] = WeakIdKeyDictionary()


def is_looked_at(model: nn.Module, loss_fn: Callable[..., object]) -> bool:
    """Whether the losses of a model's update are among those that `unchanged_gradients` is for."""
    return _looked.setdefault(model, Counter())[_code_of(loss_fn)] < _LOOKS


@contextmanager
def unchanged_gradients(model: nn.Module, loss_fn: Callable[..., object]) -> Iterator[None]:
    """Inside, a loss is computed, which shall leave the gradients of earlier passes as they are.

    Raises:
        ValueError: where it has changed them.
    """
    _looked.setdefault(model, Counter())[_code_of(loss_fn)] += 1
    gradients = GradientsAsTheyAre(model)
    yield
    if gradients.have_changed():
        raise ValueError(
            "loss_fn changed gradients (by .backward(), or by zero_grad): let it return the loss and no more; the "
            "update computes the gradient, and the optimizer steps and clears it afterwards"
        )


def _code_of(function: Callable[..., object]) -> object:
    """Code of a function, which a loop may make anew for each batch; of another callable its class."""
    function = getattr(function, "func", function)  # in functools.partial
    return getattr(function, "__code__", type(function))


class GradientsAsTheyAre:
    """The gradients of a model at a time, to tell whether a backward or a `zero_grad` has come since.

    Args:
        model: whose parameters' `.grad` are looked at.
    """

    def __init__(self, model: nn.Module) -> None:
        self._parameters = parameters_of(model)  # a model may make more of them as it first runs
        self._before = self._state()

    def have_changed(self) -> bool:
        """Whether any `.grad` is another tensor than it was, or has been changed in place."""
        return self._state() != self._before

    def _state(self) -> list[tuple[int, int] | None]:
        gradients = [parameter.grad for parameter in self._parameters]
        return [None if gradient is None else (id(gradient), gradient._version) for gradient in gradients]


class GradientsBefore:
    """The gradients that parameters had before an update: a failed one leaves them as they were.

    Args:
        model: whose parameters' `.grad` are kept.
        set_aside: whether the update shall find none, and `add` them afterwards: what ranks add up isn't to be added up
            again. Otherwise passes add to them, and a copy is kept.
    """

    def __init__(self, model: nn.Module, *, set_aside: bool) -> None:
        self._parameters = parameters_of(model)
        self._gradients = [parameter.grad for parameter in self._parameters]
        self._set_aside = set_aside
        self._copies = [None if set_aside or gradient is None else gradient.clone() for gradient in self._gradients]
        if set_aside:
            self.begin_again()

    def restore(self) -> None:
        """Makes every `.grad` what it was, the same tensor with the same values."""
        for parameter, gradient, copy in zip(self._parameters, self._gradients, self._copies, strict=True):
            parameter.grad = gradient
            if gradient is not None and copy is not None:
                with torch.no_grad():  # a sparse tensor's indices would be replaced in what detach() makes of it
                    gradient.copy_(copy)

    def begin_again(self) -> None:
        """Makes every `.grad` what the update begins with."""
        self.restore()
        if self._set_aside:
            for parameter in self._parameters:
                parameter.grad = None

    def add(self) -> None:
        """Adds what was set aside to the gradients of the update."""
        if not self._set_aside:
            return
        for parameter, gradient in zip(self._parameters, self._gradients, strict=True):
            if gradient is not None:
                parameter.grad = gradient if parameter.grad is None else gradient.add_(parameter.grad)
