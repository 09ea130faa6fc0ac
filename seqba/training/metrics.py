"""Means of a task's sums, as they are told: perplexity beside nats per token, accuracies in percent."""

from __future__ import annotations

import math
from collections.abc import Mapping

from seqba.tasks import Unit

ACCURACIES = ("top1", "top5")
"""Sums that count what was right."""


def readable(means: Mapping[str, float], unit: Unit) -> dict[str, float]:
    """Means per token or image → what a log shows.

    Returns:
        nll in nats and, per token, ppl = exp(nll); top1 and top5 in percent of the images.
    """
    told = {name: 100 * mean if name in ACCURACIES else mean for name, mean in means.items()}
    if unit == "tokens":
        told["ppl"] = perplexity(means["nll"])
    return told


def perplexity(nll: float) -> float:
    """exp(nll) for nats per token; infinite where that overflows."""
    try:
        return math.exp(nll)
    except OverflowError:
        return math.inf
