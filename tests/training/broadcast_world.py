"""A few processes, of those that share a batch one reads it: what each of them read and got."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from rank_groups import start_ranks
from torch import Tensor

from seqba.distributed import Ranks
from seqba.distributed.batch_broadcast import BatchBroadcast
from seqba.distributed.launch import leave_group
from seqba.errors import UserError

SIZE = 3
COPIES = 4
UPDATES = (3, 1, 2, 3)
"""Micro-batches of each update."""


@dataclass(frozen=True)
class Batch:
    """As those of the tasks: tensors, some of them views, and what isn't a tensor."""

    rows: Tensor
    name: str


class Reader:
    """Makes batches, and remembers which."""

    def __init__(self, update: int) -> None:
        self.update = update
        self.read: list[int] = []

    def __call__(self, number: int) -> Batch:
        self.read.append(number)
        if self.update == len(UPDATES):
            raise UserError(f"micro-batch {number} is broken")
        return Batch(torch.arange(1_000_000)[1000 * self.update + number :][:3], f"{self.update}-{number}")


def _process(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=SIZE)
    broadcast = BatchBroadcast(Ranks.of(), 60.0)
    results: list[dict[str, Any]] = []
    for update, micro_batches in enumerate([*UPDATES, 1]):
        reader = Reader(update)
        try:
            batches = broadcast.load(micro_batches, COPIES, reader)
            got = {number: (batch.rows.tolist(), batch.name) for number, batch in batches.items()}
            held = max(batch.rows.untyped_storage().nbytes() for batch in batches.values())
            results.append({"read": reader.read, "got": got, "held": held})
        except UserError as error:
            results.append({"read": reader.read, "error": str(error)})
    torch.save(results, Path(folder) / f"{rank}.pt")
    dist.barrier()
    leave_group()


def run_all(folder: Path) -> list[list[dict[str, Any]]]:
    """Starts the processes, and returns for each rank what each update came to."""
    start_ranks(_process, SIZE, str(folder))
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(SIZE)]
