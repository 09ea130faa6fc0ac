"""Batch Augmentation for sequence models: M noisy copies of every example, one merged gradient per update."""

from seqba import nn
from seqba.core import (
    Carry,
    Ranks,
    RepeatingBatchSampler,
    Step,
    finish_update,
    grid_gradient,
    merged_gradient,
    parse_plan,
    replicate,
    replicating_collate,
    shard_parameters,
    whole_tensor,
)

__version__ = "0.1.0"

__all__ = [
    "Carry",
    "Ranks",
    "RepeatingBatchSampler",
    "Step",
    "__version__",
    "finish_update",
    "grid_gradient",
    "merged_gradient",
    "nn",
    "parse_plan",
    "replicate",
    "replicating_collate",
    "shard_parameters",
    "whole_tensor",
]
