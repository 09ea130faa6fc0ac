"""The method: copies, keyed noise, plans, the merged gradient. Knows neither text nor images; imports torch alone."""

from seqba.core.carry import Carry
from seqba.core.finish import Finishing, finish_update
from seqba.core.gradient import grid_gradient, merged_gradient
from seqba.core.noise import Noise, current_noise, noise_context
from seqba.core.plan import Pass, Plan, parse_plan
from seqba.core.replicate import replicate, replicating_collate
from seqba.core.sampler import RepeatingBatchSampler
from seqba.core.sharded import (
    cut_like,
    is_sharded,
    local_part,
    put_away,
    shard_parameters,
    whole_tensor,
    whole_weights,
)
from seqba.core.spread import Ranks, RanksLost, talking
from seqba.core.sums import Step

__all__ = [
    "Carry",
    "Finishing",
    "Noise",
    "Pass",
    "Plan",
    "Ranks",
    "RanksLost",
    "RepeatingBatchSampler",
    "Step",
    "current_noise",
    "cut_like",
    "finish_update",
    "grid_gradient",
    "is_sharded",
    "local_part",
    "merged_gradient",
    "noise_context",
    "parse_plan",
    "put_away",
    "replicate",
    "replicating_collate",
    "shard_parameters",
    "talking",
    "whole_tensor",
    "whole_weights",
]
