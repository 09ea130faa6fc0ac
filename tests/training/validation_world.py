"""Three processes that validate a sharded model on their parts of a split, and translate with it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from rank_groups import start_ranks
from sums import Rows, SquaresTask
from torch import Tensor, nn

from seqba.core import ALONE
from seqba.distributed import Ranks
from seqba.distributed.launch import leave_group
from seqba.modules.walk import local_part
from seqba.training.agreement import Interrupted
from seqba.training.optimisation import Optimisation
from seqba.training.sharding import shard_model
from seqba.training.trainer import Trainer, UpdateRules
from seqba.training.validation import validate

SIZE = 3
TIMEOUT = timedelta(seconds=60)
"""Ranks that don't make the same passes wait for each other."""

BATCHES = 7
"""Of a validation: one rank has one more than the others."""


class Lines(nn.Module):
    """Two layers, so that there is something to gather."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList([nn.Linear(4, 5), nn.Linear(5, 1)])

    def forward(self, values: Tensor) -> Tensor:
        hidden: Tensor = self.layers[1](self.layers[0](values).tanh())
        return hidden.sum(1)


class CountingTask(SquaresTask):
    """Remembers which batches it saw, by their first number; its sums have the names of all there is to agree on."""

    def __init__(self) -> None:
        super().__init__(BATCHES)
        self.seen: list[float] = []

    def loss(self, model: nn.Module, batch: Rows) -> tuple[Tensor, float, Mapping[str, Tensor]]:
        self.seen.append(float(batch.values[0, 0]))
        loss, weight, sums = super().loss(model, batch)
        return loss, weight, {**sums, **dict.fromkeys(("loss", "weight", "count", "stopped", "unread"), loss * 3)}


def validated(ranks: Ranks | None, batches: int, stopping: int | None = None) -> dict[str, Any]:
    """Means over the first `batches`; with `stopping`, that rank alone is asked to stop before its second one."""
    model, task = Lines(), CountingTask()
    if ranks is not None:
        shard_model(model, ranks, torch.device("cpu"))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    trainer = Trainer(
        task, Optimisation(model, optimizer, lambda _: 0.1), UpdateRules(1, "auto", 1), ranks=ranks or ALONE
    )

    def should_stop() -> bool:
        return ranks is not None and ranks.rank == stopping and bool(task.seen)

    try:
        means: Mapping[str, float] | None = validate(trainer, task.batches[:batches], should_stop)
    except Interrupted:
        means = None
    held = [local_part(parameter).numel() for parameter in model.parameters()]
    return {"means": means, "seen": task.seen, "held": held}


def _process(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=SIZE, timeout=TIMEOUT)
    ranks = Ranks.of()
    results = {
        "whole": validated(ranks, BATCHES),
        "few": validated(ranks, 2),
        "stopped": validated(ranks, BATCHES, stopping=2),
    }
    torch.save(results, Path(folder) / f"{rank}.pt")
    dist.barrier()
    leave_group()


def run_all(folder: Path) -> list[dict[str, Any]]:
    """Starts the processes, and returns what each came to."""
    start_ranks(_process, SIZE, str(folder))
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(SIZE)]
