"""Metrics as logs show them: perplexity beside nats per token, accuracies in percent."""

from __future__ import annotations

import math
from collections.abc import Mapping

from seqba.tasks import Unit

ACCURACIES = ("top1", "top5")
"""Sums that count what was right."""

RESERVED_NAMES = frozenset(
    {
        *("event", "subset", "epoch", "update", "copies", "unit", "best", "best_of"),
        *("loss", "ppl", "bleu", "lr", "grad_norm", "grad_norm_sq", "clip_rate"),
        *("signal", "variance_between", "variance_noise", "variance_total"),
        *("unique_tokens", "processed_tokens", "unique_tokens_per_s", "processed_tokens_per_s"),
        *("unique_images", "processed_images", "unique_images_per_s", "processed_images_per_s"),
        *("seconds_per_update", "eta_s", "memory_mb", "skipped"),
    }
)
"""Names that the log and validation use themselves: a sum of a task by such a name is shown as task_NAME."""


def display_metrics(means: Mapping[str, float], unit: Unit) -> dict[str, float]:
    """Metrics that a log shows, from means per token or image.

    Returns:
        nll in nats and, per token, ppl = exp(nll); top1 and top5 in percent of the images; any other mean as it is,
        under its own name unless that is one of `RESERVED_NAMES`.
    """
    shown: dict[str, float] = {}
    for name, mean in means.items():
        own = name
        while own in RESERVED_NAMES or (own != name and own in means):
            own = f"task_{own}"
        shown[own] = 100 * mean if name in ACCURACIES else mean
    if unit == "tokens":
        shown["ppl"] = perplexity(means["nll"])
    return shown


def perplexity(nll: float) -> float:
    """exp(nll) for nats per token; infinite where that overflows."""
    try:
        return math.exp(nll)
    except OverflowError:
        return math.inf
