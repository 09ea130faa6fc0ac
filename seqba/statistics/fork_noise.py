"""Noise above a fork: the share of it that copies which begin there still average."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import torch
from torch import Tensor, nn

from seqba.statistics.estimate import Estimate, standard_error
from seqba.statistics.gradients import ExampleGradients, Gradient, LossFunction, Statistics, squared_norm, wide_zeros

Batch = TypeVar("Batch")

DRAWS = 2
"""t draws below the fork for each example, and m above it for each of these."""


def measure_noise_above(
    model: nn.Module,
    examples: Iterable[Batch],
    loss_fn: LossFunction[Batch],
    *,
    seed: int = 0,
    batch_norm: Statistics = "own",
    progress: Callable[[], object] | None = None,
) -> Estimate:
    """Share of the noise that is drawn above the fork of a model: S_above / (S_above + S_below).

    A nested analysis of variance within single examples, t draws below the fork and m draws above each of these:

        q₁ = mean‖g‖²,   q₂ = mean‖mean over draws above‖²,   q₃ = mean‖mean over all draws of an example‖²
        S_above = (q₁ − q₂)·m/(m − 1),   S_below = (q₂ − q₃)·t/(t − 1) − S_above/m,   S_w = S_above + S_below

    M copies that begin at the fork have the variance S_b/B + S_below/B + S_above/(M·B).

    Args:
        model: calls `seqba.fork`; left as it was.
        examples: N batches of one row each, at random from the data; `DRAWS`² passes over each.
        loss_fn: as `merged_gradient` takes with `forked=True`.
        seed: of the noise.
        batch_norm: see `ExampleGradients`.
        progress: called after every example.

    Returns:
        The share, and its standard error over the examples (linear approximation). It may come out above 1 where hardly
        any noise is below.

    Raises:
        ValueError: for fewer than 2 examples, a gradient that isn't finite, or a model without noise; and as
            `merged_gradient`.
        RuntimeError: as `seqba.fork`.

    Source: nested (hierarchical) analysis of variance; Searle et al. 1992, "Variance Components", chapter 3.
    """
    gradients = ExampleGradients(model, loss_fn, seed=seed, batch_norm=batch_norm)
    above: list[float] = []
    below: list[float] = []
    with gradients.undisturbed():
        for number, example in enumerate(examples):
            drawn = (gradients.forked(example, number * DRAWS + draw, DRAWS) for draw in range(DRAWS))
            for values, value in zip((above, below), _nested_variances(drawn), strict=True):
                values.append(value)
            if progress is not None:
                progress()
    return _share(torch.tensor(above, dtype=torch.float64), torch.tensor(below, dtype=torch.float64))


def _nested_variances(drawn: Iterable[Iterator[Gradient]]) -> tuple[float, float]:
    """(S_above, S_below) of one example, each unbiased; no gradient but two sums is kept."""
    q1 = q2 = 0.0
    total: list[Tensor] = []
    for of_one_below in drawn:
        own: list[Tensor] = []
        for gradient in of_one_below:
            own = own or wide_zeros(gradient.parts)
            total = total or wide_zeros(gradient.parts)
            torch._foreach_add_(own, [part.to(own[0].dtype) for part in gradient.parts])
            q1 += squared_norm(gradient.parts) / DRAWS**2
        q2 += squared_norm(own) / DRAWS**3
        torch._foreach_add_(total, own)
    q3 = squared_norm(total) / DRAWS**4
    above = (q1 - q2) * DRAWS / (DRAWS - 1)
    return above, (q2 - q3) * DRAWS / (DRAWS - 1) - above / DRAWS


def _share(above: Tensor, below: Tensor) -> Estimate:
    if len(above) < 2:
        raise ValueError(f"the examples are {len(above)}; it takes at least 2 to see how sure a share is")
    noise = float((above + below).mean())
    if not math.isfinite(noise):
        raise ValueError("a gradient is not finite: the model's weights aren't, or its loss overflows")
    if noise <= 0:
        raise ValueError("all gradients of an example are the same: there is no noise to share out")
    share = float(above.mean()) / noise
    return Estimate(share, standard_error(above - share * (above + below)) / noise)
