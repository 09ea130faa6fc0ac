"""Times of an update at several numbers of copies."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class PassCosts:
    """Times of an update at several numbers of copies, under one plan.

        seconds(M) ≈ fixed_s + M·copy_s

    Attributes:
        plan: "stacked", "looped", or where the times come from.
        seconds: M → seconds of an update, as measured.
        noise_above: share of the noise that copies average under this plan: less than 1 where they begin at a fork
            inside the model, below which each example has one draw.
    """

    plan: str
    seconds: Mapping[int, float]
    noise_above: float = 1.0

    def __post_init__(self) -> None:
        """Checks that there is something to compare with.

        Raises:
            ValueError: without the time of M = 1, for a time that isn't positive, or a share that is none.
        """
        if 1 not in self.seconds:
            raise ValueError(f"there is no time of an update at M = 1 (only at {sorted(self.seconds)})")
        if not all(0 < value < math.inf for value in self.seconds.values()):
            raise ValueError(f"times must be positive numbers of seconds, not {dict(self.seconds)}")
        if not 0 <= self.noise_above <= 1:
            raise ValueError(f"noise_above is {self.noise_above}; it must be a share from 0 to 1")

    @property
    def line(self) -> tuple[float, float]:
        """(fixed_s, copy_s): the least-squares line through the times, neither below 0."""
        if len(self.seconds) == 1:
            return 0.0, self.seconds[1]
        count = len(self.seconds)
        mean_m, mean_s = sum(self.seconds) / count, math.fsum(self.seconds.values()) / count
        spread = math.fsum((copies - mean_m) ** 2 for copies in self.seconds)
        slope = math.fsum((copies - mean_m) * (value - mean_s) for copies, value in self.seconds.items()) / spread
        fixed = mean_s - slope * mean_m
        if fixed < 0:  # through the origin
            squares = math.fsum(copies**2 for copies in self.seconds)
            return 0.0, math.fsum(copies * value for copies, value in self.seconds.items()) / squares
        return fixed, max(slope, 0.0)

    def at(self, copies: int) -> float:
        """Seconds of an update with M copies: as measured, or on the line."""
        fixed_s, copy_s = self.line
        return self.seconds.get(copies, fixed_s + copies * copy_s)
