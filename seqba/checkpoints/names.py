"""Names of checkpoint files, which are fairseq's, and the numbers in them."""

from __future__ import annotations

import re

EPOCH_NAME = re.compile(r"checkpoint(\d+)\.pt")
INTERVAL_NAME = re.compile(r"checkpoint_\d+_(\d+)\.pt")
BEST_NAME = re.compile(r"checkpoint\.best_(\w+)_(-?\d+(?:\.\d+)?)\.pt")

RISING_METRICS = ("bleu", "top1", "top5")
"""Metrics of a validation whose largest value is the best."""
