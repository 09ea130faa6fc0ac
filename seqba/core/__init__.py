"""The method: copies, keyed noise, plans, the merged gradient. Knows neither text nor images, and needs torch alone."""

from seqba.core.accumulator import Step
from seqba.core.copy_passes import CopyPass, copies
from seqba.core.gradient import grid_gradient, merged_gradient
from seqba.core.plan import Plan, parse_plan
from seqba.group import ALONE, Group
from seqba.keying.keyed import keyed
from seqba.modules.update_hooks import UpdateHook, finish_update
from seqba.noise.carry import Carry
from seqba.noise.compare import compare_copies
from seqba.noise.context import current_noise, noise_context
from seqba.noise.fork import fork, per_copy
from seqba.noise.noise import Noise
from seqba.rows.replicate import replicate, replicating_collate
from seqba.rows.sampler import RepeatingBatchSampler

__all__ = [
    "ALONE",
    "Carry",
    "CopyPass",
    "Group",
    "Noise",
    "Plan",
    "RepeatingBatchSampler",
    "Step",
    "UpdateHook",
    "compare_copies",
    "copies",
    "current_noise",
    "finish_update",
    "fork",
    "grid_gradient",
    "keyed",
    "merged_gradient",
    "noise_context",
    "parse_plan",
    "per_copy",
    "replicate",
    "replicating_collate",
]
