"""Batch Augmentation for sequence models: M noisy copies of every example, one merged gradient per update."""

from seqba import nn
from seqba.checking.check import check
from seqba.core import (
    Carry,
    RepeatingBatchSampler,
    Step,
    copies,
    current_noise,
    finish_update,
    fork,
    grid_gradient,
    keyed,
    merged_gradient,
    per_copy,
    replicate,
    replicating_collate,
)
from seqba.distributed import Ranks, RanksLost

__version__ = "0.1.0"

__all__ = [
    "Carry",
    "Ranks",
    "RanksLost",
    "RepeatingBatchSampler",
    "Step",
    "__version__",
    "check",
    "copies",
    "current_noise",
    "finish_update",
    "fork",
    "grid_gradient",
    "keyed",
    "merged_gradient",
    "nn",
    "per_copy",
    "replicate",
    "replicating_collate",
]
