"""Sums of losses, weights, units and a task's further sums, and the one place that divides them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from seqba.tasks import Unit
from seqba.training.metrics import display_metrics


@dataclass
class Totals:
    """Sums over batches, updates or ranks.

    A task may call its further sums whatever it likes: they are kept apart from those that everything is divided by.

    Attributes:
        loss: nats, with the label smoothing of training.
        weight: what the loss is divided by: target tokens, sentences or images.
        count: predicted tokens or images, what the further sums are divided by.
        extras: the task's further sums, under its own names.
    """

    loss: float = 0.0
    weight: float = 0.0
    count: float = 0.0
    extras: dict[str, float] = field(default_factory=dict)

    def add(self, loss: Tensor | float, weight: float, count: float, extras: Mapping[str, Tensor | float]) -> None:
        """Adds a batch."""
        self.loss += float(loss)
        self.weight += weight
        self.count += count
        for name, value in extras.items():
            self.extras[name] = self.extras.get(name, 0.0) + float(value)

    def add_all(self, others: Sequence[Totals]) -> None:
        """Adds the sums of other updates, or ranks."""
        for other in others:
            self.add(other.loss, other.weight, other.count, other.extras)

    @property
    def mean_loss(self) -> float:
        """Mean loss in nats per weight."""
        return self.loss / self.weight

    @property
    def means(self) -> dict[str, float]:
        """Means of the further sums, per token or image."""
        return {name: value / self.count for name, value in self.extras.items()}

    def metrics(self, unit: Unit) -> dict[str, float]:
        """Metrics as logs show them: "loss" in nats per weight, and the further means (`display_metrics`)."""
        return {"loss": self.mean_loss, **display_metrics(self.means, unit)}
