"""Two processes with a sharded Transformer, each of which takes the ways of a GPU on its CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from rank_groups import TIMEOUT, start_ranks
from torch import Tensor
from toy_transformer import make_batch, make_model

from seqba.core import ALONE, Group, merged_gradient
from seqba.distributed import Ranks, whole_tensor
from seqba.distributed.launch import leave_group
from seqba.nn.kernels import linear
from seqba.training.sharding import shard_model

SIZE = 2
Pairs = tuple[Tensor, Tensor]


def loss_fn(model: Any, batch: Pairs) -> tuple[Tensor, float]:
    return model.features(*batch).square().sum(), float(len(batch[0]))


def outputs_and_gradient(ranks: Group = ALONE) -> dict[str, Any]:
    """What a model gives without a gradient, and its gradient over three copies, in whole tensors by name."""
    model = make_model(dropout=0.2, share_all_embeddings=True)
    if isinstance(ranks, Ranks):
        shard_model(model, ranks, torch.device("cpu"))
    batch = make_batch([(5, 4), (3, 6)])
    with torch.no_grad():
        outputs = model.eval().features(*batch)
    merged_gradient(model.train(), batch, loss_fn, copies=3, update=1, plan="looped", ranks=ranks)
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    return {
        "outputs": outputs,
        "gradient": {name: whole_tensor(each) for name, each in gradients.items() if each is not None},
    }


def _process(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=SIZE, timeout=TIMEOUT)
    linear._is_on_gpu = lambda x: True
    torch.save({"alone": outputs_and_gradient(), "parts": outputs_and_gradient(Ranks.of())}, f"{folder}/{rank}.pt")
    dist.barrier()
    leave_group()


def run_all(folder: Path) -> list[dict[str, Any]]:
    """Starts the processes, and returns what each came to."""
    start_ranks(_process, SIZE, str(folder))
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(SIZE)]
