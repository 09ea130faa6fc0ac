"""Finished translations and their ranking."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Hypothesis:
    """One translation of one sentence."""

    tokens: tuple[int, ...]
    """Word ids, end of sentence included."""

    score: float
    """What it is ranked by: the summed log-probability over the length penalty, in nats."""

    token_scores: tuple[float, ...]
    """Log-probability of each token, in nats; as many as `tokens`."""


def length_penalty(length: int, lenpen: float, form: str) -> float:
    """Divisor of a summed log-probability.

    fairseq: length ** lenpen
    gnmt:    ((5 + length) / 6) ** lenpen

    Args:
        length: tokens, end of sentence counted.
        lenpen: the exponent; 0 leaves sums as they are.
        form: "fairseq" or "gnmt".

    Raises:
        ValueError: for another form.

    Source: fairseq's sequence generator; Wu et al. 2016, section 7.
    """
    if form == "fairseq":
        return math.pow(length, lenpen)
    if form == "gnmt":
        return math.pow((5 + length) / 6, lenpen)
    raise ValueError(f"form is {form!r}; it must be 'fairseq' or 'gnmt'")
