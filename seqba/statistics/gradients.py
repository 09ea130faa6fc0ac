"""Gradients of single examples, one at a time, on a model that is afterwards what it was before."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

import torch
from torch import Tensor, nn

from seqba.core import ALONE, finish_update, merged_gradient
from seqba.core.accumulator import Accumulator
from seqba.core.passes import Update
from seqba.noise.fork import Trunk, check_forked
from seqba.values import number_of_copies

Batch = TypeVar("Batch")
LossFunction = Callable[[nn.Module, Batch], Any]
"""`loss_fn(model, batch)` → a mean, (sum, weight) or (sum, weight, further sums), as `merged_gradient` takes."""

Statistics = Literal["own", "running"]
"""Whose mean and variance batch normalisation takes of a single example: its own, or the running ones."""

_BATCH_NORM = nn.modules.batchnorm._BatchNorm


@dataclass(frozen=True)
class Gradient:
    """The gradient of one example's summed loss.

    Attributes:
        parts: one tensor for each trained parameter, in the model's order; zeros where the loss didn't depend on it.
        weight: what its loss would be divided by: tokens, or 1 for an image.
    """

    parts: tuple[Tensor, ...]
    weight: float


class ExampleGradients(Generic[Batch]):
    """Makes gradients of single examples of any model and loss function.

    Args:
        model: any module. Noise of `seqba.nn`, or of a model inside `seqba.keyed`, is a function of the draw; ordinary
            dropout draws from the global generator.
        loss_fn: as `merged_gradient` takes; the gradient of its *sum* is made, so that an example of more tokens counts
            as it does in a batch.
        seed: of the draws.
        batch_norm: "own" leaves batch norms in training mode, also in the gradient without noise; "running" uses their
            running statistics in both.

    Randomness: draw t is keyed as micro-batch t of update 0, which no training update is. No two draws share noise, but
    for what is below a fork in `forked`.
    """

    def __init__(
        self, model: nn.Module, loss_fn: LossFunction[Batch], *, seed: int = 0, batch_norm: Statistics = "own"
    ) -> None:
        if batch_norm not in ("own", "running"):
            raise ValueError(f"batch_norm is {batch_norm!r}; choose own or running")
        self.model = model
        self.loss_fn = loss_fn
        self.seed = seed
        self.batch_norm = batch_norm
        self._trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        if not self._trained:
            raise ValueError("the model has no parameter that requires a gradient")

    def noisy(self, example: Batch, draw: int) -> Gradient:
        """The gradient under one draw of all noise, the model being in training mode.

        Args:
            example: a batch of one row.
            draw: its number; the same number is the same noise.
        """
        with self._modes(noise=True):
            return self._gradient(example, draw)

    def forked(self, example: Batch, draw: int, copies: int) -> Iterator[Gradient]:
        """Gradients of a model that forks, under one draw of the noise below the fork and another one above for each.

        Torch's own generators are seeded for it, so that ordinary dropout below the fork repeats its masks as well.

        Args:
            example: a batch of one row.
            draw: number of the draw below.
            copies: how many gradients, one for each copy above.

        Raises:
            ValueError: for copies < 1.
        """
        update = Update(self.model, seed=self.seed, update=0, micro_batch=draw, forked=True, seeded=True)
        for copy in range(number_of_copies(copies)):
            noise = update.noise(0, range(copy, copy + 1), trunk=Trunk(last_copy=copy))  # below is computed anew
            sums = Accumulator(None, 1, ALONE)
            with self._modes(noise=True), update.running(noise, exchanges=True):
                loss = sums.add(self.loss_fn(self.model, example), 1)
                check_forked(noise)
                loss.backward()  # type: ignore[no-untyped-call]
            yield self._taken(sums.weight)

    def clean(self, example: Batch) -> Gradient:
        """The gradient without noise: every module in evaluation mode, but for batch norms of "own" statistics."""
        with self._modes(noise=False):
            return self._gradient(example, 0)

    @contextmanager
    def undisturbed(self) -> Iterator[None]:
        """Keeps the model as it is: inside, gradients are made; afterwards `.grad` and buffers are what they were."""
        gradients = [parameter.grad for parameter in self._trained]
        buffers = [(buffer, buffer.clone()) for buffer in self.model.buffers()]
        for parameter in self._trained:
            parameter.grad = None
        try:
            yield
        finally:
            for parameter, gradient in zip(self._trained, gradients, strict=True):
                parameter.grad = gradient
            with torch.no_grad():
                for buffer, before in buffers:
                    buffer.copy_(before)

    def _gradient(self, example: Batch, draw: int) -> Gradient:
        step = merged_gradient(
            self.model, example, self.loss_fn, copies=1, seed=self.seed, micro_batch=draw, end_update=False
        )
        return self._taken(step.weight)

    def _taken(self, weight: float) -> Gradient:
        """The gradient of a mean that a pass has left, taken from the model and times the weight."""
        finish_update(self.model, keep=False)
        parts = []
        for parameter in self._trained:
            gradient, parameter.grad = parameter.grad, None
            part = torch.zeros_like(parameter) if gradient is None else gradient
            parts.append(part.detach().mul_(weight))
        return Gradient(tuple(parts), weight)

    @contextmanager
    def _modes(self, *, noise: bool) -> Iterator[None]:
        modes = [(module, module.training) for module in self.model.modules()]
        try:
            for module, _ in modes:
                is_norm = isinstance(module, _BATCH_NORM)
                module.training = self.batch_norm == "own" if is_norm else noise
            yield
        finally:
            for module, mode in modes:
                module.training = mode


def squared_norm(parts: Sequence[Tensor]) -> float:
    """Σ x² over all elements, added up in float64."""
    norms = [torch.linalg.vector_norm(part, dtype=_wide(part)) for part in parts]
    return float(torch.stack(norms).square().sum())


def inner_product(one: Sequence[Tensor], other: Sequence[Tensor]) -> float:
    """Σ x·y over all elements, added up in float64."""
    products = [(x.to(_wide(x)) * y.to(_wide(y))).sum() for x, y in zip(one, other, strict=True)]
    return float(torch.stack(products).sum())


def pearson(one: Gradient, other: Gradient) -> float:
    """Pearson's correlation ρ of two gradients, all parameters flattened into one vector.

        ρ = (⟨x, y⟩ − P·x̄·ȳ) / √((‖x‖² − P·x̄²)·(‖y‖² − P·ȳ²))        (P parameters)

    Returns:
        ρ in [−1, 1]; NaN where a gradient is constant (all zeros, say).
    """
    count = sum(part.numel() for part in one.parts)
    mean, other_mean = _total(one.parts) / count, _total(other.parts) / count
    covariance = inner_product(one.parts, other.parts) - count * mean * other_mean
    variance = squared_norm(one.parts) - count * mean**2
    other_variance = squared_norm(other.parts) - count * other_mean**2
    if not variance > 0 or not other_variance > 0:
        return math.nan
    return max(-1.0, min(1.0, covariance / math.sqrt(variance * other_variance)))


def wide_zeros(like: Sequence[Tensor]) -> list[Tensor]:
    """Buffers of the same shapes, in float64 where the device has it."""
    return [torch.zeros_like(part, dtype=_wide(part)) for part in like]


def _wide(part: Tensor) -> torch.dtype:
    """float64, but for devices without it (Apple's)."""
    return torch.float32 if part.device.type == "mps" else torch.float64


def _total(parts: Sequence[Tensor]) -> float:
    return float(torch.stack([part.sum(dtype=_wide(part)) for part in parts]).sum())
