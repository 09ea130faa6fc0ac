"""Estimates with their standard errors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Estimate:
    """A number and its standard error, NaN where that isn't known."""

    value: float
    error: float = math.nan

    def plain(self) -> dict[str, float | None]:
        """Plain values, as JSON holds them, None for what isn't finite; `from_plain` reads them back."""
        return {"value": _or_none(self.value), "standard_error": _or_none(self.error)}

    @classmethod
    def from_plain(cls, values: Mapping[str, Any]) -> Estimate:
        """Reads `plain` back: infinity for a value of None.

        Raises:
            KeyError, TypeError, ValueError: for anything else.
        """
        value, error = values["value"], values["standard_error"]
        return cls(math.inf if value is None else float(value), math.nan if error is None else float(error))


def standard_error(values: Tensor, counts: Tensor | None = None) -> float:
    """Standard error of the mean of N independent values; of means over earlier examples, each counts as many times.

    NaN where fewer than two of them count.
    """
    counts = torch.ones_like(values) if counts is None else counts
    if counts.count_nonzero() < 2:
        return math.nan
    shares = counts / counts.sum()
    mean = (shares * values).sum()
    variance = (shares * (values - mean).square()).sum()
    return math.sqrt(float(variance) / (len(values) - 1))


def _or_none(number: float) -> float | None:
    return number if math.isfinite(number) else None
