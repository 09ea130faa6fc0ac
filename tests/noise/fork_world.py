"""What a process does with copies that begin inside a model: dealt over ranks, in DistributedDataParallel, in FSDP."""

from __future__ import annotations

from typing import Any

import torch
from forked_network import ForkedNetwork, forked_gradient, forked_loss
from small_network import gradient_of, make_batch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch_versions import SHARDS_PARAMETERS

import seqba
from seqba.distributed import Ranks, shard_parameters

CPU = torch.device("cpu")


class Normalised(ForkedNetwork):
    """The network with a batch norm below its fork."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.norm = seqba.nn.GhostBatchNorm2d(7)

    def below(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return super().below(self.norm(x[:, :, None, None]).flatten(1))


def make_network(**options: Any) -> Normalised:
    torch.manual_seed(1)
    return Normalised(**options).double()


def rows_of(seed: int) -> tuple[Tensor, Tensor]:
    return make_batch(seed=seed, dtype=torch.float64)


def grid(model: nn.Module, ranks: Ranks | None, weight: float) -> tuple[Tensor, Tensor]:
    """The gradient and running means of three micro-batches × two copies, which four ranks have unequally."""
    micro_batches = [rows_of(seed) for seed in range(3)]
    seqba.grid_gradient(
        model, micro_batches, forked_loss, copies=2, weight=weight, update=5, plan="looped", ranks=ranks, forked=True
    )
    return gradient_of(model), torch.cat([*model.buffers()][:2])


def on_processes(ranks: Ranks) -> dict[str, Any]:
    """All of it; of a process by itself what no key reaches, which groups of every size draw alike in looped passes."""
    ordinary = make_network(ordinary=True)
    seqba.merged_gradient(
        ordinary, rows_of(0), forked_loss, copies=4, update=3, plan="looped", forked=True, ranks=ranks
    )
    if ranks.size == 1:
        return {"ordinary": gradient_of(ordinary)}
    cells = sum(len(copies) for _, copies in ranks.cells(3, 2))
    gradient, statistics = grid(make_network(), ranks, cells * 6.0)
    wrapped = DistributedDataParallel(make_network(), process_group=ranks.group)
    seqba.merged_gradient(wrapped, rows_of(ranks.rank), forked_loss, copies=3, update=5, plan="looped", forked=True)
    return {
        "gradient": gradient,
        "statistics": statistics,
        "ordinary": gradient_of(ordinary),
        "wrapped": gradient_of(wrapped),
        "refusals": refusals(ranks),
    }


def refusals(ranks: Ranks) -> list[str]:
    """What is said about parameters in parts: torch's, and seqba's own where this torch has them."""
    sharded = [(fully_shard(ForkedNetwork(), mesh=DeviceMesh.from_group(ranks.group, "cpu")), None)]
    if SHARDS_PARAMETERS:
        own = ForkedNetwork()
        shard_parameters(own, ranks, CPU, blocks=[own.hidden], methods=[])
        sharded.append((own, ranks))
    said = []
    for model, group in sharded:
        try:
            seqba.merged_gradient(model, make_batch(), forked_loss, copies=4, update=1, forked=True, ranks=group)
        except ValueError as error:
            said.append(str(error))
    return said


def mean_of_processes(size: int) -> Tensor:
    """What DistributedDataParallel makes of the processes' own gradients."""
    found = []
    for rank in range(size):
        model = make_network()
        found.append(forked_gradient(model, rows_of(rank), copies=3, update=5, micro_batch=rank).clone())
    return torch.stack(found).mean(0)
