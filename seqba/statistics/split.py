"""The variance of a gradient, split in two: what comes from the examples, and what from the noise within an example."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from seqba.statistics.estimate import Estimate, standard_error
from seqba.statistics.gradients import (
    ExampleGradients,
    Gradient,
    LossFunction,
    Statistics,
    inner_product,
    squared_norm,
    wide_zeros,
)

Batch = TypeVar("Batch")


@dataclass(frozen=True)
class VarianceSplit:
    """Where the variance of a gradient comes from, per example.

        g(n, t): gradient of example n under noise t;   μ(n) = E_t g(n, t);   G = E_n μ(n)
        signal = ‖G‖²,   between = E‖μ(n) − G‖²,   noise = E‖g(n, t) − μ(n)‖²

    A batch of B examples and M copies has E‖ĝ‖² = signal + between/B + noise/(M·B). Estimates are unbiased, so that one
    of a small number may come out negative.

    Attributes:
        signal: squared norm of the mean gradient, |G|².
        between: S_b, the variance between examples, summed over parameters.
        noise: S_w, the variance within an example, of its noise.
        ratio: S_w/S_b: about so many copies are worth their while.
        examples: N, how many were measured.
        draws: m, of the noise for each.
        mean_weight: tokens (or images: 1) of an example; gradients are of an example's summed loss divided by it, so
            that their mean is the gradient of a batch.
    """

    signal: Estimate
    between: Estimate
    noise: Estimate
    ratio: Estimate
    examples: int
    draws: int
    mean_weight: float = 1.0

    @property
    def correlation_of_views(self) -> float:
        """ρ(T₁, T₂), of two noisy views of one example: (|G|² + S_b)/(|G|² + S_b + S_w)."""
        return (self.signal.value + self.between.value) / self._total

    @property
    def correlation_of_examples(self) -> float:
        """ρ of noisy views of two different examples: |G|²/(|G|² + S_b + S_w)."""
        return self.signal.value / self._total

    @property
    def _total(self) -> float:
        return self.signal.value + self.between.value + self.noise.value

    def plain(self) -> dict[str, Any]:
        """Plain values, as JSON holds them; `from_plain` reads them back."""
        told = {name: getattr(self, name).plain() for name in _ESTIMATES}
        return {**told, "examples": self.examples, "draws": self.draws, "mean_weight": self.mean_weight}

    @classmethod
    def from_plain(cls, values: Mapping[str, Any]) -> VarianceSplit:
        """Reads `plain` back.

        Raises:
            KeyError, TypeError, ValueError: for anything else.
        """
        parts = {name: Estimate.from_plain(values[name]) for name in _ESTIMATES}
        return cls(
            **parts,
            examples=int(values["examples"]),
            draws=int(values["draws"]),
            mean_weight=float(values["mean_weight"]),
        )


_ESTIMATES = ("signal", "between", "noise", "ratio")


@dataclass
class SplitSums:
    """The three sums of a one-way analysis of variance, example by example: no gradient is kept.

        q₁ = mean‖g‖²,   q₂ = mean_n‖ḡ_n‖²,   q₃ = ‖ḡ‖²
        S_w = (q₁ − q₂)·m/(m − 1),   S_b = (q₂ − q₃)·N/(N − 1) − S_w/m,   |G|² = q₃ − S_b/N − S_w/(N·m)

    Two buffers of the parameters' size, in float64, whatever N and m: one example's sum over its draws, and the sum
    over all.

    Attributes:
        draws: m, at least 2.

    Standard errors come from a few numbers of each example: its within-variance, the norm of its mean gradient, and its
    inner product with the examples before it. They are those of a linear approximation; that of |G|² is up to twice too
    large where |G|² is well below S_b/N.
    """

    draws: int
    _squares: list[float] = field(default_factory=list)  # Σ_t ‖g(n, t)‖² of each example's summed loss
    _joint: list[float] = field(default_factory=list)  # ‖Σ_t g(n, t)‖²
    _past: list[float] = field(default_factory=list)  # ⟨Σ_t g(n, t), the sum over all earlier examples⟩
    _weights: list[float] = field(default_factory=list)
    _total: list[Tensor] = field(default_factory=list)
    _own: list[Tensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Checks that noise and examples can be told apart."""
        if self.draws < 2:
            raise ValueError(f"draws is {self.draws}; it takes at least 2 of each example to see the noise")

    def add(self, gradients: Iterable[Gradient]) -> None:
        """Adds an example: its `draws` gradients, each of which is let go before the next is asked for.

        Raises:
            ValueError: for another number of them.
        """
        squares, count, weight = 0.0, 0, 0.0
        for gradient in gradients:
            if not self._total:
                self._total, self._own = wide_zeros(gradient.parts), wide_zeros(gradient.parts)
            for own, part in zip(self._own, gradient.parts, strict=True):
                own.add_(part) if count else own.copy_(part)
            squares += squared_norm(gradient.parts)
            weight = gradient.weight
            count += 1
        if count != self.draws:
            raise ValueError(f"an example came with {count} gradients, not {self.draws}")
        self._squares.append(squares)
        self._joint.append(squared_norm(self._own))
        self._past.append(inner_product(self._own, self._total))
        self._weights.append(weight)
        torch._foreach_add_(self._total, self._own)

    def split(self) -> VarianceSplit:
        """The split over the examples added so far.

        Raises:
            ValueError: for fewer than 2 examples, or a gradient that isn't finite.
        """
        count, draws = len(self._weights), self.draws
        if count < 2:
            raise ValueError(f"the examples are {count}; it takes at least 2 to see the variance between them")
        weights = torch.tensor(self._weights, dtype=torch.float64)
        mean_weight = float(weights.mean())
        scale = 1 / (draws * mean_weight) ** 2
        joint = scale * torch.tensor(self._joint, dtype=torch.float64)  # (N,) ‖ḡ_n‖²
        squares = scale * draws * torch.tensor(self._squares, dtype=torch.float64)  # (N,) mean_t ‖g(n, t)‖²
        q1, q2, q3 = float(squares.mean()), float(joint.mean()), scale * squared_norm(self._total) / count**2
        signal, between, noise = solve_sums(q1, q2, q3, groups=count, members=draws)
        if not math.isfinite(signal):
            raise ValueError("a gradient is not finite: the model's weights aren't, or its loss overflows")
        # What each example says of the three; the number of its tokens moves all of them.
        within = (squares - joint) * draws / (draws - 1)
        places = torch.arange(count, dtype=torch.float64)
        past = scale * torch.tensor(self._past, dtype=torch.float64) / places.clamp(min=1)  # (N,) of ‖G‖²
        past[0] = signal
        own = joint - within / draws - 2 * past
        share = weights / mean_weight - 1
        ratio = Estimate(math.inf)
        if between > 0:
            ratio = Estimate(noise / between, standard_error(within - noise / between * own) / between)
        return VarianceSplit(
            signal=Estimate(signal, 2 * standard_error(past - signal * share, places)),
            between=Estimate(between, standard_error(own - 2 * between * share)),
            noise=Estimate(noise, standard_error(within - 2 * noise * share)),
            ratio=ratio,
            examples=count,
            draws=draws,
            mean_weight=mean_weight,
        )


def solve_sums(q1: float, q2: float, q3: float, *, groups: int, members: int) -> tuple[float, float, float]:
    """(|G|², S_b, S_w) of the three sums, unbiased; see `SplitSums`.

    Args:
        q1: mean squared norm of single gradients.
        q2: mean squared norm of the groups' mean gradients.
        q3: squared norm of the mean over all.
        groups: N, at least 2: examples, or micro-batches.
        members: m, at least 2: gradients in each group.
    """
    noise = (q1 - q2) * members / (members - 1)
    between = (q2 - q3) * groups / (groups - 1) - noise / members
    signal = q3 - between / groups - noise / (groups * members)
    return signal, between, noise


def measure_split(
    model: nn.Module,
    examples: Iterable[Batch],
    loss_fn: LossFunction[Batch],
    *,
    draws: int = 4,
    seed: int = 0,
    batch_norm: Statistics = "own",
    progress: Callable[[], object] | None = None,
) -> VarianceSplit:
    """Splits the variance of a model's gradient into that between examples and that of the noise.

    Args:
        model: any module, left as it was: weights, `.grad`, buffers and modes.
        examples: N batches of one row each, at random from the data.
        loss_fn: as `merged_gradient` takes.
        draws: m, passes over each example, at least 2; N·m passes in all.
        seed: of the noise.
        batch_norm: see `ExampleGradients`.
        progress: called after every example.

    Raises:
        ValueError: for fewer than 2 examples or draws, or a gradient that isn't finite; and as `merged_gradient`.

    Source: one-way analysis of variance; |G|² and its use as in McCandlish et al. 2018 (arXiv 1812.06162), appendix A.
    """
    gradients = ExampleGradients(model, loss_fn, seed=seed, batch_norm=batch_norm)
    sums = SplitSums(draws)
    with gradients.undisturbed():
        for number, example in enumerate(examples):
            sums.add(gradients.noisy(example, number * draws + draw) for draw in range(draws))
            if progress is not None:
                progress()
    return sums.split()
