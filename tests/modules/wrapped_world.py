"""What a process does with a model in a wrapper of torch's, and what one process does in place of all of them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
import torch.distributed as dist
from rank_groups import counting_messages
from small_network import Network, gradient_of, make_batch, mean_loss, summed_loss
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint
from torch_versions import complete_cpu_streams

import seqba
from seqba.distributed import Ranks

COPIES = 3


def make_network(dropout: type[nn.Module] = seqba.nn.Dropout) -> Network:
    torch.manual_seed(1)
    model = Network().double()
    model.dropout = dropout(0.3)
    return model


def rows_of(rank: int, micro_batch: int = 0) -> Any:
    """Other rows on every process, and other numbers of them."""
    return make_batch(rows=4 + rank, seed=10 * micro_batch + rank, dtype=torch.float64)


def mean_of_processes(size: int, micro_batches: int = 1) -> Tensor:
    """The gradient of DistributedDataParallel: the mean over processes of their own, each under its own keys."""
    gradients = []
    for rank in range(size):
        model = make_network()
        for micro_batch in range(micro_batches):
            key = {"update": 7, "micro_batch": micro_batch * size + rank}
            seqba.merged_gradient(model, rows_of(rank, micro_batch), summed_loss, copies=COPIES, **key)
        gradients.append(gradient_of(model))
    return torch.stack(gradients).mean(0)


def in_data_parallel(ranks: Ranks) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for plan in ("looped", "stacked", 2, "auto"):
        model, messages = wrapped(ranks)
        step = seqba.merged_gradient(model, rows_of(ranks.rank), summed_loss, copies=COPIES, plan=plan, update=7)
        found[f"gradient {plan}"] = gradient_of(model)
        found[f"messages {plan}"] = len(messages)
        found[f"weight {plan}"] = step.weight
    found["two micro-batches"] = accumulated(ranks)
    found["grid"] = of_a_grid(ranks)
    found["recomputed"] = recomputed(ranks)
    found["buckets"] = accumulated(ranks, gradient_as_bucket_view=True)
    found["compiled"] = compiled(ranks)
    found["after a failure"] = after_a_failure(ranks)
    found["compared"] = [compared(wrapped(ranks)[0], ranks, plan) for plan in ("stacked", "looped")]
    found["refused"] = refusal(ranks)
    found["static graph"], found["static graph refused"] = of_a_static_graph(ranks)
    found["ordinary masks differ"] = ordinary_masks_differ(ranks)
    found["around the wrapper"] = around_the_wrapper(ranks)
    return found


def wrapped(ranks: Ranks, **options: Any) -> tuple[DistributedDataParallel, list[int]]:
    """The network in DistributedDataParallel, and a list of the messages that its gradients have been sent in."""
    return counting_messages(make_network(), ranks, **options)


def accumulated(ranks: Ranks, **options: Any) -> Tensor:
    model, _ = wrapped(ranks, **options)
    for micro_batch in range(2):
        rows = rows_of(ranks.rank, micro_batch)
        seqba.merged_gradient(model, rows, summed_loss, copies=COPIES, plan="looped", update=7, micro_batch=micro_batch)
    return gradient_of(model)


def of_a_grid(ranks: Ranks) -> Tensor:
    """Twice the mean over a grid of two micro-batches of one weight, which is the sum of their means."""
    model, _ = wrapped(ranks)
    micro_batches = [rows_of(ranks.rank, micro_batch) for micro_batch in range(2)]
    weight = COPIES * sum(len(micro_batch[1]) for micro_batch in micro_batches)
    seqba.grid_gradient(model, micro_batches, summed_loss, copies=COPIES, weight=weight, plan="looped", update=7)
    return 2 * gradient_of(model)


def recomputed(ranks: Ranks) -> Tensor:
    model, _ = wrapped(ranks)

    def loss_fn(model: nn.Module, batch: Any) -> tuple[Tensor, int]:
        logits = checkpoint(model, batch[0], use_reentrant=False)
        return nn.functional.cross_entropy(logits, batch[1], reduction="sum"), len(batch[1])

    seqba.merged_gradient(model, rows_of(ranks.rank), loss_fn, copies=COPIES, plan="looped", update=7)
    return gradient_of(model)


def compiled(ranks: Ranks) -> Tensor:
    model = torch.compile(wrapped(ranks)[0], backend="eager")
    seqba.merged_gradient(model, rows_of(ranks.rank), summed_loss, copies=COPIES, plan="looped", update=7)
    return gradient_of(model)


def of_a_static_graph(ranks: Ranks) -> tuple[Tensor, str]:
    """The looped gradient of a static graph after an exchange, and what is said of one before any."""
    model, _ = wrapped(ranks, static_graph=True)
    options: dict[str, Any] = {"copies": COPIES, "update": 7}
    try:
        seqba.merged_gradient(model, rows_of(ranks.rank), summed_loss, plan="looped", **options)
        told = ""
    except ValueError as error:
        told = str(error)
    assert all(parameter.grad is None for parameter in model.parameters())
    for plan in ("stacked", "looped"):
        model.zero_grad()
        seqba.merged_gradient(model, rows_of(ranks.rank), summed_loss, plan=plan, **options)
    return gradient_of(model), told


def after_a_failure(ranks: Ranks) -> Tensor:
    """The gradient of the update after one whose second copy failed on every rank."""
    model, _ = wrapped(ranks)
    calls = 0

    def loss_fn(model: nn.Module, batch: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise RuntimeError("a bad batch")
        return summed_loss(model, batch)

    for update in (6, 7):
        try:
            seqba.merged_gradient(model, rows_of(ranks.rank), loss_fn, copies=COPIES, plan="looped", update=update)
        except RuntimeError:
            assert all(parameter.grad is None for parameter in model.parameters())
    return gradient_of(model)


def variance(logits: Tensor, *, copies: int) -> Tensor:
    return logits.view(copies, -1, logits.shape[1]).var(0).sum()


def compared(model: nn.Module, ranks: Ranks, plan: Any) -> Tensor:
    """The gradient of a loss that compares copies."""

    def loss_fn(model: nn.Module, batch: Any) -> tuple[Tensor, int]:
        logits = model(batch[0])
        return logits.square().sum() + seqba.compare_copies(variance, logits), len(batch[1])

    options = {"copies": COPIES, "plan": plan, "update": 7, "compared": True}
    seqba.merged_gradient(model, rows_of(ranks.rank), loss_fn, **options)
    return gradient_of(model)


def refusal(ranks: Ranks) -> str:
    try:
        seqba.merged_gradient(wrapped(ranks)[0], rows_of(0), summed_loss, copies=COPIES, ranks=ranks)
    except ValueError as error:
        return str(error)
    return ""


def around_the_wrapper(ranks: Ranks) -> dict[str, str]:
    """What is said of a loop and a loss function that don't call the same of the wrapper and the model in it."""
    told = {}
    for way in ("model in it", "wrapper around it", "wrapper beside ranks", "compiled in it", "passes", "put off"):
        model, _ = wrapped(ranks)
        inner = model.module
        if way == "compiled in it":
            model = DistributedDataParallel(torch.compile(inner, backend="eager"), process_group=ranks.group)
        passed, called = (inner, model) if way.startswith("wrapper") or way == "compiled in it" else (model, inner)
        options = {"ranks": ranks} if way == "wrapper beside ranks" else {}
        told[way] = ""
        try:
            if way == "passes":
                one_by_one(passed, called, ranks)
            else:
                with model.no_sync() if way == "put off" else nullcontext():
                    rows = rows_of(ranks.rank)
                    loss_fn = calling(called)
                    seqba.merged_gradient(passed, rows, loss_fn, copies=COPIES, plan="looped", update=7, **options)
        except ValueError as error:
            told[way] = str(error)
            assert way == "passes" or all(parameter.grad is None for parameter in model.parameters())
    return told


def calling(called: nn.Module) -> Callable[[nn.Module, Any], tuple[Tensor, int]]:
    """A loss function that calls another model than the one that it is given."""
    return lambda _, batch: summed_loss(called, batch)


def one_by_one(passed: nn.Module, called: nn.Module, ranks: Ranks) -> None:
    for pass_ in seqba.copies(passed, COPIES, update=7):
        with pass_:
            total, weight = summed_loss(called, rows_of(ranks.rank))
            (total / weight / COPIES).backward()


def ordinary_masks_differ(ranks: Ranks) -> bool:
    """Whether ordinary dropout drew other masks on every process, whose generators were seeded alike."""
    network = make_network(nn.Dropout)
    seen: list[Tensor] = []
    network.dropout.register_forward_hook(lambda module, given, out: seen.append(out[:4] != 0))
    model = DistributedDataParallel(network, process_group=ranks.group)
    torch.manual_seed(0)
    seqba.merged_gradient(model, rows_of(ranks.rank), summed_loss, copies=1, update=7)
    masks = [torch.zeros_like(seen[0]) for _ in range(ranks.size)]
    dist.all_gather(masks, seen[0], group=ranks.group)
    return not torch.equal(masks[0], masks[1])


def in_sharding(ranks: Ranks) -> dict[str, Any]:
    """The gradients under either FSDP, put together."""
    complete_cpu_streams()
    found: dict[str, Any] = {}
    mesh = DeviceMesh.from_group(ranks.group, "cpu")
    for plan in ("looped", "stacked", "auto"):
        model = fully_shard(make_network(), mesh=mesh)
        seqba.merged_gradient(model, rows_of(ranks.rank), summed_loss, copies=COPIES, plan=plan, update=7)
        whole = [parameter.grad.full_tensor().flatten() for parameter in model.parameters()]
        found[f"fully_shard {plan}"] = torch.cat(whole)
    for around in ("update", "pass"):
        found[f"autocast around the {around}"] = under_autocast(mesh, ranks, around)
    found["refused"] = refused_in_fsdp(ranks)
    try:
        compared(model, ranks, "stacked")
    except ValueError as error:
        found["not compared"] = str(error)
    return found


def under_autocast(mesh: DeviceMesh, ranks: Ranks, around: str) -> Tensor:
    """The gradient of a network with a layer that is gathered by itself, in bfloat16, put together."""
    model = make_network().float()
    fully_shard(model.hidden, mesh=mesh)
    fully_shard(model, mesh=mesh)

    def loss_fn(model: nn.Module, batch: Any) -> tuple[Tensor, int]:
        with torch.autocast("cpu", torch.bfloat16):
            return summed_loss(model, batch)

    batch = make_batch(rows=4, seed=ranks.rank)
    with torch.autocast("cpu", torch.bfloat16) if around == "update" else nullcontext():
        seqba.merged_gradient(model, batch, loss_fn, copies=COPIES, plan="looped", update=7)
    return torch.cat([parameter.grad.full_tensor().flatten() for parameter in model.parameters()])


def refused_in_fsdp(ranks: Ranks) -> str:
    model = FullyShardedDataParallel(make_network(), process_group=ranks.group, use_orig_params=True, device_id="cpu")
    try:
        seqba.merged_gradient(model, rows_of(0), mean_loss, copies=COPIES, ranks=ranks)
    except ValueError as error:
        return str(error)
    return ""


def plain_masks(model: nn.Module) -> list[Tensor]:
    """What the dropouts of a network in some wrapper drop, for all copies."""
    network = next(module for module in model.modules() if isinstance(module, Network))
    seen: list[Tensor] = []
    for module in (network.dropout, network.locked):
        module.register_forward_hook(lambda module, given, out: seen.append(out != 0))
    batch = make_batch(dtype=torch.float64)
    seqba.merged_gradient(model, batch, mean_loss, copies=COPIES, plan="stacked", update=7)
    return seen
