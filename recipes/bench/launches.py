"""Operations of an update that a GPU would compute, and how often the host would wait for it, without a GPU.

    python recipes/bench/launches.py [--size base] [--copies 1 4] [--max-tokens 4096] [--json FILE]

On a GPU of fake tensors (fake_gpu.py) one update is dispatched and counted: the base Transformer, all copies stacked,
the gradient by `grid_gradient`, its norm, and fused Adam. "operations" are what torch is asked to compute: all but
views and the making of empty memory; a GPU launches a kernel or a few for each. "waits" are values that the host reads,
"from the CPU" tensors that are copied over within the update.

"calls" are those of Python's functions and C's that an update makes on the host, which bounds small updates: counted on
a CPU, by as many layers of 16 units. Their number is the same on every machine, as no time is.

Reached on 2026-11-26 (the first batch, whose sources have padding and whose targets have none): 600 operations at
M = 1 and 629 at M = 4 in float32, 584 and 617 in bfloat16, and one wait.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any
from unittest import mock

import torch
from fake_gpu import NAME, Dispatched, fake_gpu
from harness import Row, parse_options, report
from torch import Tensor, nn
from workload import SIZES, Size, build_ours, fused_loss, training_batches

from seqba import grid_gradient
from seqba.cli.command import run as run_command
from seqba.data.pairs import PairBatch
from seqba.modules.walk import gradients_of
from seqba.nn.kernels import products
from seqba.nn.kernels.casts import shared_casts
from seqba.nn.kernels.processor import Processor
from seqba.training.optimizers import build_optimizer
from seqba.training.options import OptimisationOptions

DTYPES = {"float32": None, "bfloat16": torch.bfloat16}


def count_update(size: str, copies: int, dtype: torch.dtype | None, max_tokens: int) -> Dispatched:
    """What the second update of a model dispatches."""
    (batch,) = training_batches(1, max_tokens=max_tokens)
    with fake_gpu() as dispatched:
        update = build_update(SIZES[size], fake_batch(batch), copies, NAME, dtype)
        for number in range(2):
            dispatched.launches, dispatched.waits, dispatched.sent = Counter(), Counter(), Counter()
            update(number)
    return dispatched


def count_calls(size: str, copies: int, dtype: torch.dtype | None) -> int:
    """Calls of functions, Python's and C's, that the third update of as many layers of 16 units makes on a CPU.

    On one without a way of its own, since they stand for a GPU's host: one that widens bfloat16 calls more.
    """
    (batch,) = training_batches(1, max_tokens=64)
    narrow = dataclasses.replace(SIZES[size], embed_dim=16, ffn_dim=32, heads=2)
    update = build_update(narrow, batch, copies, "cpu", dtype)
    calls = 0

    def count(_frame: object, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    with mock.patch.object(products, "processor", functools.cache(Processor)):
        update(0)
        update(1)
        sys.setprofile(count)
        try:
            update(2)
        finally:
            sys.setprofile(None)
    return calls


def build_update(
    size: Size, batch: PairBatch, copies: int, device: str, dtype: torch.dtype | None
) -> Callable[[int], None]:
    """An update as the trainer makes it: the gradient of stacked copies, its norm, a step of fused Adam."""
    torch.manual_seed(1)
    model = build_ours(size).train()
    optimizer = build_optimizer(model.parameters(), OptimisationOptions())
    weight = float(copies * batch.target_tokens)

    def loss(model: nn.Module, batch: PairBatch) -> tuple[Tensor, float]:
        with torch.autocast(device, dtype, enabled=dtype is not None):
            return fused_loss(model, batch)

    def norm() -> list[Tensor]:
        return [nn.utils.get_total_norm(gradients_of(model), foreach=True)]  # as torch itself chooses on a real one

    def update(number: int) -> None:
        with shared_casts():
            grid_gradient(
                model, [batch], loss, copies=copies, weight=weight, plan="stacked", update=number, also_read=norm
            )
        optimizer.step()
        optimizer.zero_grad()

    return update


def fake_batch(batch: PairBatch) -> PairBatch:
    """A batch of the same shapes on the fake GPU, with the same lengths on the host."""
    shapes: dict[str, Any] = {
        field.name: getattr(batch, field.name).shape
        for field in dataclasses.fields(batch)
        if isinstance(getattr(batch, field.name), Tensor)
    }
    return dataclasses.replace(batch, **{name: torch.empty(shape, dtype=torch.int64) for name, shape in shapes.items()})


def main(arguments: Sequence[str] | None = None) -> int:
    """Counts each number of copies in each dtype."""
    options = parse_options(__doc__, arguments, size="base", copies=[1, 4], max_tokens=4096)
    if options.quick:
        options.size, options.max_tokens = "tiny", 256
    rows: list[Row] = []
    for name, dtype in DTYPES.items():
        for copies in options.copies:
            found = count_update(options.size, copies, dtype, options.max_tokens)
            most = ", ".join(f"{operation} {count}" for operation, count in found.launches.most_common(8))
            rows.append(
                {
                    "dtype": name,
                    "copies": copies,
                    "operations": sum(found.launches.values()),
                    "waits": sum(found.waits.values()),
                    "from the CPU": f"{sum(found.sent.values())}",
                    "calls": count_calls(options.size, copies, dtype),
                    "most of them": most,
                }
            )
    report("Operations of an update on a GPU", rows, options)
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
