"""Advice on M: a variance split and measured times → worth in examples, updates, time, a sentence."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from seqba.statistics.estimate import Estimate
from seqba.statistics.pass_costs import PassCosts
from seqba.statistics.split import VarianceSplit

PAYS_BELOW = 0.97
"""A predicted time of this share of M = 1's counts as a gain: less is within what timings repeat to."""

NEGLIGIBLE = 0.05
"""Noise below this share of the variance, or variance below this share of E‖ĝ‖², isn't worth reducing."""


@dataclass(frozen=True)
class CopiesAdvice:
    """Predicted gains of M copies.

    Attributes:
        copies: M.
        examples: B_eq/B: a batch with M copies has the variance of so many times its examples, without copies.
        noise_left: share of the noise's variance that is left, 1/M.
        updates: predicted updates to the same loss, M = 1 being 1; also the time on M ranks that were idle, each with
            one copy, messages not counted.
        updates_range: the same with |G|² two standard errors larger or smaller.
        time: plan → predicted time to the same loss, M = 1 being 1 under the same plan.
    """

    copies: int
    examples: Estimate
    noise_left: float
    updates: float
    updates_range: tuple[float, float]
    time: Mapping[str, float]


@dataclass(frozen=True)
class Advice:
    """Gains of each number of copies, and where they end.

    Attributes:
        split: what was measured.
        batch_examples: B, examples of an update.
        copies: which M were looked at.
        costs: times of an update, plan by plan; none if nothing was timed.
        read_s: seconds of an update that reading its examples takes, however many copies; None if not timed.
    """

    split: VarianceSplit
    batch_examples: float
    copies: tuple[int, ...]
    costs: tuple[PassCosts, ...] = ()
    read_s: float | None = None

    @property
    def rows(self) -> tuple[CopiesAdvice, ...]:
        """Gains of each M."""
        return tuple(map(self.row, self.copies))

    def row(self, copies: int) -> CopiesAdvice:
        """Gains of M copies."""
        signal, margin = self.split.signal.value, 2 * self.split.signal.error
        updates = self._updates(copies, signal)
        bounds = (signal - margin, signal + margin) if math.isfinite(margin) else (signal, signal)
        return CopiesAdvice(
            copies=copies,
            examples=worth_of_copies(self.split.ratio, copies),
            noise_left=1 / copies,
            updates=updates,
            updates_range=(self._updates(copies, bounds[0]), self._updates(copies, bounds[1])),
            time={
                costs.plan: self.updates_under(costs, copies) * costs.at(copies) / costs.at(1) for costs in self.costs
            },
        )

    def updates_under(self, costs: PassCosts, copies: int) -> float:
        """Predicted updates to the same loss with M copies under a plan, M = 1 being 1."""
        return self._updates(copies, self.split.signal.value, costs.noise_above)

    @property
    def useful_copies(self) -> int:
        """M beyond which what is left is mostly variance between examples: S_w/S_b, at least 2."""
        ratio = self.split.ratio.value
        return max(2, math.ceil(ratio)) if math.isfinite(ratio) else max(self.copies)

    @property
    def most_examples(self) -> float:
        """B_eq/B of infinitely many copies: 1 + S_w/S_b."""
        return 1 + max(self.split.ratio.value, 0.0)

    @property
    def noise_scale(self) -> float:
        """(S_b + S_w)/|G|² in examples: about the batch beyond which more examples save few updates."""
        signal = self.split.signal.value
        return (self.split.between.value + self.split.noise.value) / signal if signal > 0 else math.inf

    def best(self) -> tuple[CopiesAdvice, PassCosts, float] | None:
        """The M > 1 and plan of the least predicted time, and that time, M = 1 under its best plan being 1."""
        if not self.costs:
            return None
        alone_s = min(costs.at(1) for costs in self.costs)
        candidates = [
            (self.updates_under(costs, row.copies) * costs.at(row.copies) / alone_s, row, costs)
            for row in self.rows
            for costs in self.costs
            if row.copies > 1
        ]
        if not candidates:
            return None
        time, row, costs = min(candidates, key=lambda each: each[0])
        return row, costs, time

    def sentences(self) -> list[str]:
        """The advice in plain words, one thought each."""
        return [*self._on_noise(), *self._on_time()]

    def plain(self) -> dict[str, Any]:
        """Plain values, as JSON holds them."""
        return {
            "batch_examples": self.batch_examples,
            "useful_copies": self.useful_copies,
            "most_examples": _finite(self.most_examples),
            "noise_scale_examples": _finite(self.noise_scale),
            "read_s": self.read_s,
            "costs": {
                costs.plan: {
                    "seconds_per_update": {str(copies): value for copies, value in costs.seconds.items()},
                    "fixed_s": costs.line[0],
                    "copy_s": costs.line[1],
                    "noise_above": costs.noise_above,
                }
                for costs in self.costs
            },
            "copies": [
                {
                    "copies": row.copies,
                    "worth_in_examples": row.examples.value,
                    "worth_standard_error": _finite(row.examples.error),
                    "noise_left": row.noise_left,
                    "updates": row.updates,
                    "updates_range": list(row.updates_range),
                    "time": dict(row.time),
                }
                for row in self.rows
            ],
            "advice": self.sentences(),
        }

    def _on_noise(self) -> list[str]:
        split = self.split
        variance = split.between.value + split.noise.value
        if split.noise.value < NEGLIGIBLE * variance:
            return [
                f"The noise is {split.noise.value / variance:.1%} of a gradient's variance: copies of an example are "
                "nearly the same again. Copies need noise: dropout, or random views."
            ]
        lines = []
        if split.signal.value > 0 and variance / self.batch_examples < NEGLIGIBLE * split.signal.value:
            lines.append(
                f"Variance is {variance / self.batch_examples / split.signal.value:.1%} of the squared gradient of a "
                f"batch of {self.batch_examples:.4g} examples: neither copies nor more examples save updates here."
            )
        if math.isinf(self.most_examples):
            return [*lines, "No variance between examples was seen: M copies are worth M times the examples."]
        row = self.row(self.useful_copies)
        return [
            *lines,
            f"M = {row.copies} is worth {row.examples.value:.2f} times the examples, and infinitely many copies are "
            f"worth {self.most_examples:.2f} times: beyond M = {row.copies} more examples reduce the variance, more "
            "copies hardly do.",
        ]

    def _on_time(self) -> list[str]:
        found = self.best()
        if found is None or self.split.noise.value < NEGLIGIBLE * (self.split.between.value + self.split.noise.value):
            return []
        row, costs, time = found
        updates = self.updates_under(costs, row.copies)
        dearer = time / updates
        if time < PAYS_BELOW:
            return [
                f"On this device M = {row.copies} ({costs.plan}) should come to the same loss in {time:.0%} of the "
                f"time of M = 1: {updates:.0%} of the updates, each {dearer:.2f} times as long."
            ]
        ranks = self.row(self.useful_copies)
        reading = ""
        if self.read_s is not None:
            alone_s = min(each.at(1) for each in self.costs)
            reading = f" (here {self.read_s / alone_s:.1%} of an update)"
        return [
            f"On this device copies don't pay as optimisation: at best M = {row.copies} ({costs.plan}) needs "
            f"{updates:.0%} of the updates, each {dearer:.2f} times as long. They do through idle ranks (M = "
            f"{ranks.copies} on {ranks.copies} of them: {ranks.updates:.0%} of the time, messages not counted), "
            f"costly reading{reading}, or generalisation, which no variance predicts."
        ]

    def _updates(self, copies: int, signal: float, noise_above: float = 1.0) -> float:
        between, noise = max(self.split.between.value, 0.0), max(self.split.noise.value, 0.0)
        rest = self.batch_examples * max(signal, 0.0) + between
        left = 1 - noise_above + noise_above / copies
        return (rest + noise * left) / (rest + noise)


def advise(
    split: VarianceSplit,
    *,
    batch_examples: float,
    copies: Sequence[int] = (1, 2, 4, 8),
    costs: Sequence[PassCosts] = (),
    read_s: float | None = None,
) -> Advice:
    """Predicts what each number of copies gains, and at what cost.

        B_eq/B = (S_b + S_w)/(S_b + S_w/M)
        updates(M)/updates(1) = (B·|G|² + S_b + S_w/M)/(B·|G|² + S_b + S_w)
        time(M)/time(1) = updates(M)/updates(1) · seconds(M)/seconds(1)

    Where copies begin at a fork that has the share a of the noise above it, S_w/M is S_w·(1 − a + a/M).

    The second line takes the learning rate to be the best one for each M, and the split to stay what it is: it is that
    of one moment of training, and S_w/S_b rises during it. An estimate of |G|² below 0 counts as 0.

    Args:
        split: from `measure_split`.
        batch_examples: B, examples of an update.
        copies: which M to look at.
        costs: times of an update under each plan.
        read_s: seconds of an update that go into reading its examples.

    Raises:
        ValueError: for a batch without examples, an M below 1, or a split without variance.

    Source: updates: McCandlish et al. 2018 (arXiv 1812.06162), section 2.
    """
    if not 0 < batch_examples < math.inf:
        raise ValueError(f"batch_examples is {batch_examples}; it must be a positive number")
    if not copies or min(copies) < 1:
        raise ValueError(f"copies are {list(copies)}; each must be at least 1")
    if not split.between.value + split.noise.value > 0:
        raise ValueError("all gradients are the same: there is no variance that copies or examples could reduce")
    return Advice(split, batch_examples, tuple(sorted(set(copies))), tuple(costs), read_s)


def worth_of_copies(ratio: Estimate, copies: int) -> Estimate:
    """B_eq/B = (1 + r)/(1 + r/M) for r = S_w/S_b: M copies in examples. A negative estimate of r counts as 0."""
    if math.isinf(ratio.value):
        return Estimate(float(copies))
    r = max(ratio.value, 0.0)
    return Estimate((1 + r) / (1 + r / copies), ratio.error * (1 - 1 / copies) / (1 + r / copies) ** 2)


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None
