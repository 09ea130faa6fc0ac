"""Real processes in groups of every size, for what must come out the same in all of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from datetime import timedelta
from multiprocessing import spawn
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from preloaded import preloaded
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from seqba.distributed import Ranks
from seqba.distributed.launch import leave_group

TIMEOUT = timedelta(minutes=5)
"""For a machine that does much else: ranks of larger groups wait while smaller ones work."""

Work = Callable[[Ranks], dict[str, Any]]
Results = dict[tuple[int, int], dict[str, Any]]


def run_groups(work: Work, sizes: Sequence[int], folder: Path) -> Results:
    """(Size of a group, rank) → what `work`, a function of a module, came to there."""
    start_ranks(_process, max(sizes), work, tuple(sizes), str(folder))
    return {
        (size, rank): torch.load(folder / f"{size}-{rank}.pt", weights_only=True)
        for size in sizes
        for rank in range(size)
    }


def start_ranks(process: Callable[..., None], ranks: int, *arguments: Any) -> None:
    """Calls `process`, a function of a module, in so many processes, with rank and arguments, and waits for them."""
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    before = spawn.get_executable()
    mp.set_executable(preloaded().python)
    try:
        mp.start_processes(process, args=arguments, nprocs=ranks, start_method="spawn")
    finally:
        mp.set_executable(before)  # for what other tests of this process start


def _process(rank: int, work: Work, sizes: Sequence[int], folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=max(sizes), timeout=TIMEOUT
    )
    for size in sizes:
        group = dist.new_group(list(range(size)), timeout=TIMEOUT)
        if rank < size:
            torch.save(work(Ranks.of(group)), Path(folder) / f"{size}-{rank}.pt")
    dist.barrier()
    leave_group()


def counting_messages(module: nn.Module, ranks: Ranks, **options: Any) -> tuple[DistributedDataParallel, list[int]]:
    """A module in DistributedDataParallel, and a list of the messages that its gradients have been sent in."""
    model = DistributedDataParallel(module, process_group=ranks.group, **options)
    messages: list[int] = []

    def send(state: object, bucket: Any) -> Any:
        messages.append(bucket.index())
        work = dist.all_reduce(bucket.buffer().div_(ranks.size), group=ranks.group, async_op=True)
        return work.get_future().then(lambda future: future.value()[0])

    send.__annotations__ = {"bucket": dist.GradBucket, "return": torch.futures.Future[Tensor]}  # looked at, as they are
    model.register_comm_hook(None, send)
    return model, messages
