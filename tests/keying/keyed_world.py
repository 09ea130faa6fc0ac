"""What a process does with a model of others, by itself and in DistributedDataParallel."""

from __future__ import annotations

from typing import Any

import torch
from foreign_models import gradient, make_model, make_rows, square_loss
from rank_groups import counting_messages
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch_versions import complete_cpu_streams

import seqba
from seqba.distributed import Ranks

NAMES = ("nn.Dropout", "Transformer", "Transformer, time first", "drop path", "LayerDrop", "diffusion")


def on_processes(ranks: Ranks) -> dict[str, Any]:
    """All that follows."""
    return on_ranks(ranks) | on_wrapped_ranks(ranks)


def on_ranks(ranks: Ranks) -> dict[str, Any]:
    """The gradients of four copies, two on each of two ranks."""
    found = {}
    for name in NAMES:
        model = make_model(name)
        seqba.merged_gradient(model, make_rows(), square_loss, copies=4, update=3, keyed=True, ranks=ranks)
        found[name] = gradient(model)
    return found


def on_wrapped_ranks(ranks: Ranks) -> dict[str, Any]:
    """The gradients of other rows on each rank, by `merged_gradient` and by a loop of passes."""
    rows = make_rows(seed=ranks.rank)
    merged, _ = wrapped(ranks)
    seqba.merged_gradient(merged, rows, square_loss, copies=3, update=3, keyed=True)
    looped, messages = wrapped(ranks)
    for pass_ in seqba.copies(looped, 3, update=3):
        with pass_:
            (square_loss(looped, rows) / 3).backward()
    complete_cpu_streams()
    sharded = fully_shard(make_model("Transformer"), mesh=DeviceMesh.from_group(ranks.group, "cpu"))
    seqba.merged_gradient(sharded, rows, square_loss, copies=3, update=3, keyed=True, plan="looped")
    whole = [parameter.grad.full_tensor().flatten() for parameter in sharded.parameters()]
    alone, none = wrapped(ranks)
    for pass_ in seqba.copies(alone, 3, update=3, exchange=False):
        with pass_:
            (square_loss(alone, rows) / 3).backward()
    return {
        "merged": gradient(merged),
        "copies": gradient(looped),
        "sharded": torch.cat(whole),
        "messages": len(messages),
        "messages without exchange": len(none),
    }


def wrapped(ranks: Ranks) -> tuple[DistributedDataParallel, list[int]]:
    """A model in DistributedDataParallel, and a list of the messages that its gradients have been sent in."""
    return counting_messages(make_model("Transformer"), ranks)
