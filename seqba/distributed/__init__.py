"""Several processes that compute an update together: who they are, sums over them, parameters in parts on them."""

from seqba.distributed.lost import RanksLost, talking
from seqba.distributed.ranks import Ranks
from seqba.distributed.sharding import (
    cut_like,
    is_sharded,
    put_away,
    shard_parameters,
    whole_tensor,
    whole_weights,
)

__all__ = [
    "Ranks",
    "RanksLost",
    "cut_like",
    "is_sharded",
    "put_away",
    "shard_parameters",
    "talking",
    "whole_tensor",
    "whole_weights",
]
