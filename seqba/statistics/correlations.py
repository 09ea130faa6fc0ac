"""Correlations of single examples' gradients: of two views of one, and of two different ones (the paper's Table 1)."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from torch import nn

from seqba.statistics.gradients import ExampleGradients, LossFunction, Statistics, pearson

Batch = TypeVar("Batch")

KINDS = {
    "clean_view": "ρ(x, T(x))   an example and a noisy view of it",
    "views": "ρ(T₁, T₂)    two noisy views of an example",
    "same_class": "ρ(x, y)      two examples of one class",
    "other_class": "ρ(z, w)      two examples of different classes",
    "other_example": "ρ(z, w)      two different examples",
}
"""Kind of pair → its line in a table, with the paper's letters."""


@dataclass(frozen=True)
class Related(Generic[Batch]):
    """An example and others that its gradient is compared to, each a batch of one row.

    Attributes:
        example: x.
        others: a kind of `KINDS` → another example; their gradients are without noise, as x's is.
    """

    example: Batch
    others: tuple[tuple[str, Batch], ...] = ()


@dataclass(frozen=True)
class Correlations:
    """Pearson's ρ of pairs of gradients.

    Attributes:
        kind: of `KINDS`.
        values: ρ of each pair; NaN where a gradient was zero throughout.
    """

    kind: str
    values: tuple[float, ...]

    @property
    def known(self) -> list[float]:
        """The values that are numbers."""
        return [value for value in self.values if not math.isnan(value)]

    @property
    def median(self) -> float:
        """The median, as Table 1 has it; NaN without a value."""
        return statistics.median(self.known) if self.known else math.nan

    @property
    def deviation(self) -> float:
        """Median absolute deviation from the median."""
        return statistics.median(abs(value - self.median) for value in self.known) if self.known else math.nan

    @property
    def spread(self) -> float:
        """Standard deviation (n − 1 in the denominator); NaN for fewer than 2 values."""
        return statistics.stdev(self.known) if len(self.known) > 1 else math.nan

    def plain(self) -> dict[str, Any]:
        """Plain values, as JSON holds them."""
        summary = {
            "median": self.median,
            "median_absolute_deviation": self.deviation,
            "standard_deviation": self.spread,
        }
        told = {name: None if math.isnan(value) else value for name, value in summary.items()}
        return {**told, "values": [None if math.isnan(value) else value for value in self.values]}


def measure_correlations(
    model: nn.Module,
    related: Iterable[Related[Batch]],
    loss_fn: LossFunction[Batch],
    *,
    seed: int = 0,
    batch_norm: Statistics = "own",
    progress: Callable[[], object] | None = None,
) -> dict[str, Correlations]:
    """Correlates gradients of single examples: three passes for each, and one for each other that it is compared to.

    ρ(T₁, T₂) is what Batch Augmentation averages, and has a formula: (|G|² + S_b)/(|G|² + S_b + S_w)
    (`VarianceSplit.correlation_of_views`). At initialisation, where K classes are equally likely and features nearly
    the same for all images, ρ(x, y) of one class is 1 and of different classes −1/(K − 1).

    Args:
        model: any module, left as it was.
        related: the examples, at random from the data, with those that they are compared to.
        loss_fn: as `merged_gradient` takes.
        seed: of the noise.
        batch_norm: see `ExampleGradients`. The paper doesn't say; its numbers at initialisation are those of "own".
        progress: called after every example.

    Returns:
        "clean_view" and "views", and the kinds of `related`, in the order in which they came.

    Raises:
        ValueError: without an example, and as `merged_gradient`.

    Source: Hoffer et al. 2020, section 3.1, Table 1.
    """
    gradients = ExampleGradients(model, loss_fn, seed=seed, batch_norm=batch_norm)
    found: dict[str, list[float]] = {"clean_view": [], "views": []}
    with gradients.undisturbed():
        for number, each in enumerate(related):
            clean = gradients.clean(each.example)
            view = gradients.noisy(each.example, 2 * number)
            found["clean_view"].append(pearson(clean, view))
            found["views"].append(pearson(view, gradients.noisy(each.example, 2 * number + 1)))
            for kind, other in each.others:
                found.setdefault(kind, []).append(pearson(clean, gradients.clean(other)))
            if progress is not None:
                progress()
    if not found["views"]:
        raise ValueError("there are no examples to correlate")
    return {kind: Correlations(kind, tuple(values)) for kind, values in found.items()}
