"""A few processes that make the same updates with sharded parameters in groups of every size, and what they come to."""

from __future__ import annotations

import os
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from rank_groups import TIMEOUT, start_ranks
from spread_world import MicroBatches
from torch import Tensor, nn

from seqba.core import grid_gradient, merged_gradient
from seqba.distributed import (
    Ranks,
    RanksLost,
    cut_like,
    is_sharded,
    reshard,
    shard_parameters,
    whole_tensor,
    whole_weights,
)
from seqba.modules.walk import local_part
from seqba.nn import Dropout, GhostBatchNorm2d

SIZES = (2, 3, 4)
"""Ranks that don't make the same passes wait for each other."""

UPDATES = ((2, 3), (2, 3), (1, 2), (2, 3), (1, 3))
"""(S, M) of each update: even and uneven numbers of passes, and fewer cells than some of the groups have ranks."""


class Block(nn.Module):
    """Noise and batch statistics, and a matrix whose rows no number of ranks shares evenly."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 7, 3, padding=1, bias=False)
        self.norm = GhostBatchNorm2d(7, 2)
        self.dropout = Dropout(0.3)

    def forward(self, x: Tensor) -> Tensor:
        hidden: Tensor = self.dropout(self.norm(self.conv(x)).tanh())
        return hidden


class Network(nn.Module):
    """Two blocks, and a matrix that belongs to none and is read outside of the model's forward as well."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList([Block(1), Block(7)])
        self.head = nn.Parameter(torch.randn(5, 7))
        self.rare = nn.Parameter(torch.ones(1))

    def features(self, x: Tensor, *, rare: bool) -> Tensor:
        for block in self.blocks:
            x = block(x)
        x = x.mean((2, 3))
        return x * self.rare + self.head.sum() if rare else x + self.head.sum()


def loss_fn(model: nn.Module, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, float, dict[str, Tensor]]:
    x, labels = batch
    hidden = model.features(x, rare=int(labels.max()) == 1)  # type: ignore[operator] # of the first micro-batch alone
    losses = nn.functional.cross_entropy(hidden @ model.head.t(), labels, reduction="none")  # type: ignore[operator]
    return losses.sum(), float(len(labels)), {"largest": losses.detach().sum() * 2}


def mean_loss_fn(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    total, weight, _ = loss_fn(model, batch)
    return total / weight


def network(ranks: Ranks | None, *, sharded: bool = True, dtype: torch.dtype = torch.float64) -> Network:
    model = Network().to(dtype)
    if ranks is not None and sharded:
        shard_parameters(model, ranks, torch.device("cpu"), blocks=model.blocks, methods=["features"])
    return model


def train(ranks: Ranks | None, plan: Any, *, sharded: bool = True) -> dict[str, Any]:
    """A few updates: losses, weights, buffers and Adam's averages, and how much of them this rank has."""
    model = network(ranks, sharded=sharded)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, fused=True)
    steps = []
    for update, (size, copies) in enumerate(UPDATES, start=1):
        micro_batches = MicroBatches(update)
        cells = (Ranks(0, 1) if ranks is None else ranks).cells(size, copies)
        weight = float(sum(len(own) * (2 + 2 * number) for number, own in cells))
        step = grid_gradient(
            model,
            [micro_batches[s] for s in range(size)],
            loss_fn,
            copies=copies,
            weight=weight,
            plan=plan,
            update=update,
            ranks=ranks,
        )
        norm = nn.utils.get_total_norm(
            [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        )
        optimizer.step()
        optimizer.zero_grad()
        steps.append((step.loss, step.weight, step.sums["largest"], float(whole_tensor(norm))))
    held = sum(local_part(parameter).numel() for parameter in model.parameters())
    kept = sum(
        local_part(value).numel() for state in optimizer.state.values() for value in state.values() if value.dim()
    )
    return {
        "state": {name: whole_tensor(tensor) for name, tensor in model.state_dict().items()},
        "averages": [whole_tensor(state["exp_avg"]) for state in optimizer.state.values()],
        "steps": steps,
        "held": held,
        "kept": kept,
    }


def accumulate(ranks: Ranks | None) -> dict[str, Any]:
    """Two batches added up before one step, with means for losses and the plan left to itself."""
    model = network(ranks)
    for number in range(2):
        merged_gradient(
            model, MicroBatches(1)[number], mean_loss_fn, copies=5, update=1, micro_batch=number, ranks=ranks
        )
    return {
        name: whole_tensor(parameter.grad) for name, parameter in model.named_parameters() if parameter.grad is not None
    }


def narrow(ranks: Ranks | None) -> dict[str, Tensor]:
    """The gradient of four looped copies in bfloat16, with one autocast around all of their passes."""
    model = network(ranks, dtype=torch.float32)
    x, labels = MicroBatches(1)[0]
    with torch.autocast("cpu", torch.bfloat16):
        merged_gradient(model, (x.float(), labels), loss_fn, copies=4, plan="looped", update=1, ranks=ranks)
    return {name: whole_tensor(parameter.grad) for name, parameter in model.named_parameters() if "conv" in name}


def tried(ranks: Ranks | None) -> list[Tensor]:
    """Outputs without noise: before and after the weights are changed by hand, and as often as each rank likes."""
    model = network(ranks).eval()
    x, _ = MicroBatches(1)[0]
    outputs = []
    with torch.no_grad():
        outputs.append(model.features(x, rare=True))
        reshard(model)
        for parameter in model.parameters():
            local_part(parameter).mul_(2)
        outputs.append(model.features(x, rare=True))
        with whole_weights(model) if ranks is not None else nullcontext():
            for _ in range(1 if ranks is None else 1 + ranks.rank):
                last = model.features(x, rare=False) @ model.head.t()
        outputs.append(last)
        outputs.append(model.features(x, rare=False))
    block = model.blocks[0].get_parameter("conv.weight")
    assert ranks is None or local_part(block) is not block  # only inside of its own forward it is whole
    return outputs


def taken_over(ranks: Ranks | None) -> bool:
    """Whether whole tensors, cut, are the parts of the parameters that they came from."""
    model = network(ranks)
    assert is_sharded(model) == (ranks is not None)
    return all(
        torch.equal(local_part(cut_like(own, whole_tensor(own).clone())), local_part(own)) for own in model.parameters()
    )


def everything(ranks: Ranks) -> dict[str, Any]:
    """What each of the tests looks at."""
    return {
        "looped": train(ranks, "looped"),
        "two": train(ranks, 2),
        "unsharded": train(ranks, "auto", sharded=False),
        "accumulate": accumulate(ranks),
        "narrow": narrow(ranks),
        "tried": tried(ranks),
        "taken over": taken_over(ranks),
    }


def _lonely(rank: int, folder: str) -> None:
    """The second process goes before a forward, and before a backward in which nothing is gathered any more."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2, timeout=TIMEOUT)
    ranks = Ranks.of()
    told = []
    x, _ = MicroBatches(1)[0]
    forward, backward = network(ranks), Network().double()
    shard_parameters(backward, ranks, torch.device("cpu"), blocks=[], methods=["features"])
    hidden = backward.features(x, rare=True)
    if rank == 1:
        os._exit(0)
    for talk in (lambda: hidden.sum().backward(), lambda: forward.features(x, rare=True)):
        try:
            talk()
        except RanksLost:
            told.append(True)
    torch.save(told, Path(folder) / "told.pt")
    os._exit(0)


def run_lonely(folder: Path) -> list[bool]:
    """For each kind of message that goes to a rank that has gone: whether it was called lost."""
    start_ranks(_lonely, 2, str(folder))
    told: list[bool] = torch.load(folder / "told.pt", weights_only=True)
    return told
