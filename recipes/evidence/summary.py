"""Records of runs → what an arm came to: means over seeds with their spread, at equal updates and at equal cost."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from record import Record
from study import Arm, Study

LAST, LAST_NLL = "last", "last_nll"
"""The last validation, as scores, by the study's metric and in nats: of images it is of the test pictures."""


@dataclass(frozen=True)
class Spread:
    """A mean over seeds.

    Attributes:
        values: one for each seed.
    """

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Over the seeds."""
        return statistics.fmean(self.values)

    @property
    def deviation(self) -> float:
        """Standard deviation, n − 1 in the denominator; NaN for a single seed."""
        return statistics.stdev(self.values) if len(self.values) > 1 else math.nan

    def text(self, digits: int) -> str:
        """Mean ± standard deviation."""
        spread = "" if math.isnan(self.deviation) else f" ± {self.deviation:.{digits}f}"
        return f"{self.mean:.{digits}f}{spread}"

    def against(self, other: Spread, digits: int) -> str:
        """Difference from another arm's mean ± its standard error."""
        own, theirs = (each.deviation**2 / len(each.values) for each in (self, other))
        error = math.sqrt(own + theirs)
        difference = f"{self.mean - other.mean:+.{digits}f}".replace("-", "−")
        return difference + ("" if math.isnan(error) else f" ± {error:.{digits}f}")


@dataclass(frozen=True)
class Side:
    """An arm and its runs that were trained to their end.

    Attributes:
        study: see `Study`.
        arm: see `Arm`.
        records: of its seeds.
    """

    study: Study
    arm: Arm
    records: tuple[Record, ...]

    @property
    def machines(self) -> list[str]:
        """GPUs, or processors, of the runs."""
        return sorted({record["machine"].get("gpu", record["machine"]["processor"]) for record in self.records})

    def mean(self, of: Callable[[Record], float]) -> float:
        """Mean of a number over the seeds."""
        return statistics.fmean(of(record) for record in self.records)

    def score(self, name: str) -> Spread | None:
        """A score of the evaluation, `LAST` or `LAST_NLL`; None unless all seeds have it."""
        if name in (LAST, LAST_NLL):
            metric = self.study.metric if name == LAST else "nll"
            return Spread(tuple(record["curves"]["valid"][metric][-1] for record in self.records))
        found = [record["scores"].get(name) for record in self.records]
        return None if None in found else Spread(tuple(found))

    def best(self, *, flop: float = math.inf) -> Spread | None:
        """The best validation within so many operations; None if a seed has none."""
        found = [self._best_of(record, flop) for record in self.records]
        known = [value for value in found if value is not None]
        return Spread(tuple(known)) if len(known) == len(found) else None

    def updates_to(self, value: float) -> int | None:
        """Updates after which the mean over seeds has reached a value of validation; None if it never does."""
        for update, mean in self.curve():
            if (mean >= value) if self.study.rises else (mean <= value):
                return update
        return None

    def curve(self) -> list[tuple[int, float]]:
        """(update, mean of validation over the seeds), at the updates that all have."""
        curves = [
            dict(zip(*(r["curves"]["valid"][k] for k in ("update", self.study.metric)), strict=True))
            for r in self.records
        ]
        shared = sorted(set.intersection(*map(set, curves)))
        return [(update, statistics.fmean(curve[update] for curve in curves)) for update in shared]

    def _best_of(self, record: Record, flop: float) -> float | None:
        curve, each = record["curves"]["valid"], record["flop"] / record["updates"]
        pairs = zip(curve["update"], curve[self.study.metric], strict=True)
        values = [value for update, value in pairs if value is not None and update * each <= flop * (1 + 1e-6)]
        return None if not values else max(values) if self.study.rises else min(values)


def sides_of(study: Study, records: Iterable[Record]) -> list[Side]:
    """Arms of a study with runs that were trained to their end, the baseline first."""
    own = [record for record in records if record["study"] == study.name and is_trained(record)]
    found = []
    for arm in study.arms:
        key = (arm.name, arm.copies, arm.variant)
        seeds = [record for record in own if (record["arm"], record["copies"], record["variant"]) == key]
        if seeds:
            found.append(Side(study, arm, tuple(sorted(seeds, key=lambda record: record["seed"]))))
    return found


def is_trained(record: Record) -> bool:
    """Whether a run was trained to its end, patience being one; its evaluation may be missing."""
    return bool(record.get("trained") or record["updates"] >= record["of_updates"])
