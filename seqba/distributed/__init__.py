"""Several processes that compute an update together: who they are, sums over them, parameters in parts on them."""

from seqba.distributed.lost import collective_errors
from seqba.distributed.ranks import Ranks
from seqba.distributed.sharding import (
    cut_like,
    is_sharded,
    reshard,
    shard_parameters,
    whole_tensor,
    whole_weights,
)
from seqba.errors import RanksLost

__all__ = [
    "Ranks",
    "RanksLost",
    "collective_errors",
    "cut_like",
    "is_sharded",
    "reshard",
    "shard_parameters",
    "whole_tensor",
    "whole_weights",
]
