"""Sums between two lines of a run's log."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from seqba.statistics import CellSplit
from seqba.tasks import Unit
from seqba.training.totals import Totals
from seqba.training.update_report import UpdateReport


@dataclass
class LogWindow:
    """Sums since the last line; a skipped update has no loss to add."""

    totals: Totals = field(default_factory=Totals)
    unique: int = 0
    processed: int = 0
    grad_norm: float = 0.0
    grad_norm_sq: float = 0.0
    clipped: int = 0
    updates: int = 0
    seconds: float = 0.0
    splits: list[CellSplit] = field(default_factory=list)

    def add(self, report: UpdateReport, seconds: float) -> None:
        """Adds an update that took `seconds`."""
        self.seconds += seconds
        if report.skipped:
            return
        self.totals.add_all([report.totals])
        self.unique += report.unique
        self.processed += report.processed
        self.grad_norm += report.grad_norm
        self.grad_norm_sq += report.grad_norm**2
        self.clipped += report.clipped
        self.updates += 1
        if report.split is not None:
            self.splits.append(report.split)

    def means(self, unit: Unit) -> dict[str, float | None]:
        """Loss in nats per weight, the task's means, gradient norm, rate of clipping; None where nothing was.

        Where updates were measured, also the parts of the variance: means over them, as ratios should be of means.
        """
        if not self.updates:
            return dict.fromkeys(("loss", "nll", "grad_norm", "grad_norm_sq", "clip_rate"))
        return {
            **self.totals.metrics(unit),
            "grad_norm": self.grad_norm / self.updates,
            "grad_norm_sq": self.grad_norm_sq / self.updates,
            "clip_rate": self.clipped / self.updates,
            **self._variance(),
        }

    def _variance(self) -> dict[str, float | None]:
        parts = {
            "signal": [split.signal for split in self.splits],
            "variance_between": [split.between for split in self.splits],
            "variance_noise": [split.noise for split in self.splits],
            "variance_total": [split.total for split in self.splits],
        }
        known = {name: [value for value in values if value is not None] for name, values in parts.items()}
        return {name: math.fsum(values) / len(values) for name, values in known.items() if values}
