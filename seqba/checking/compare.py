"""Two gradients that should be the same."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

Gradients = dict[str, Tensor]

# How far two gradients are apart by rounding, as a share of their norm, and as one of a parameter's own.
_ROUNDING = {torch.float64: 1e-11, torch.float32: 1e-5, torch.bfloat16: 5e-2, torch.float16: 1e-2}
# A parameter whose gradient is so small a share of the whole has none but by rounding (the keys' bias of attention).
_NOTHING = 1e-3


@dataclass(frozen=True)
class Comparison:
    """Two gradients that should be the same.

    Attributes:
        difference: norm of the difference over the norm of the one that the other is compared with; NaN where one of
            them couldn't be computed.
        parameter: name of the first parameter that differs, in the order of the model; None where they agree.
        error: what was raised instead of the gradient.
    """

    difference: float
    parameter: str | None = None
    error: str | None = None

    @property
    def agrees(self) -> bool:
        """Whether the two are the same to rounding."""
        return self.parameter is None and self.error is None

    def __str__(self) -> str:
        """`yes (1.3e-07)`, or where they begin to differ."""
        if self.error is not None:
            return f"NO: {self.error}"
        return (
            f"yes ({self.difference:.1e})" if self.agrees else f"NO ({self.difference:.1e}, from {self.parameter} on)"
        )


def compare(found: Gradients, expected: Gradients, half: torch.dtype | None = None) -> Comparison:
    """The difference of two gradients, and the first parameter that has more than rounding explains.

    Args:
        found: the one.
        expected: the other.
        half: precision that a part of them was computed in, whatever the parameters' own is; None for theirs.
    """
    rounding = _ROUNDING.get(half, 0.0) if half is not None else 0.0
    total = math.hypot(*(float(gradient.norm()) for gradient in expected.values()))
    apart: list[float] = []
    first: str | None = None
    for name, known in (found | expected).items():
        one, other = (gradients.get(name, torch.zeros_like(known)) for gradients in (found, expected))
        apart.append(float((one - other).norm()))
        scale = max(float(other.norm()), _NOTHING * total)
        if first is None and not apart[-1] <= max(rounding, _ROUNDING.get(known.dtype, 1e-5)) * scale:
            first = name
    return Comparison(math.hypot(*apart) / total if total else math.nan, first)
