"""Content of `.grad` before an update, kept in case the update fails."""

from __future__ import annotations

from torch import nn

from seqba.modules.walk import parameters_of


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
                gradient.detach().copy_(copy)

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
