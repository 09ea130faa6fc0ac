"""Training speed and memory against Hugging Face's MarianMTModel, for the same models on the same batches.

    python recipes/bench/training_throughput.py [--sizes base small] [--copies 1 4] [--rounds 8] [--json FILE]

Needs the extra `bench` (pip install -e .[bench]).

One measurement is one update: --max-tokens 4096 as seqba-train counts them, lengths of Multi30k under 8,000 pieces,
similar lengths together (so Marian has little padding to pay for), each of the M copies through its own dropout 0.1,
label smoothing 0.1, then Adam. Five sides, each in its own process:

    seqba            grid_gradient (plan auto) and fused Adam, as seqba-train runs: freed memory is kept
    seqba, 4 micro-batches  the same pairs as four micro-batches of a quarter each (--max-tokens 1024 --update-freq 4):
    less memory seqba, malloc    as the first, with the C library's own ways Marian           a plain loop: M times
    forward, F.cross_entropy and backward, then torch.optim.Adam Marian, kept     the same, freed memory kept as in
    ours: what is left is the model's and the loop's doing

tokens/s counts target tokens that aren't padding, once per copy. "of GEMM" is the rate of the operations that the
model's products need without padding (see workload.training_flops) over the best rate of a single float32 product in
the same run: the shapes of the model's own layers, and a square one of 2,048. "x Marian" is the median over rounds
of the speed over Marian's in the same round; "memory" the peak of the process over Marian's.

Reached on two AVX-512 cores of an AMD EPYC: 1.42x Marian at base (1.46x with 4 copies), 1.76x at small (1.40x), and
with 4 copies as 4 micro-batches at base 0.46 of its memory; 1.17x, 1.30x, 1.22x and 1.06x of Marian with kept memory.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from harness import Row, gemm_rates, median_ratio, parse_options, report, seconds, serve, take_turns
from workload import (
    SIZES,
    VOCABULARY,
    Size,
    build_ours,
    cut,
    fused_loss,
    training_batches,
    training_flops,
    under_autocast,
)

from seqba import grid_gradient
from seqba.cli.command import run as run_command
from seqba.core import parse_plan
from seqba.nn.kernels.casts import shared_casts
from seqba.training.optimizers import build_optimizer
from seqba.training.options import OptimisationOptions

BATCHES = 4
LEARNING_RATE = 1e-4
SIDES = {
    "seqba": {"model": "seqba", "keep_memory": True},
    "seqba, 4 micro-batches": {"model": "seqba", "keep_memory": True, "shards": 4},
    "seqba, malloc": {"model": "seqba", "keep_memory": False},
    "Marian": {"model": "marian", "keep_memory": False},
    "Marian, kept": {"model": "marian", "keep_memory": True},
}


def build_side(spec: Mapping[str, Any]) -> Callable[[int], Any]:
    """A child's measurement: seconds of update `number`, or the rates of single products."""
    torch.manual_seed(1)
    size = SIZES[spec["size"]]
    batches = training_batches(BATCHES, max_tokens=spec["max_tokens"])
    if spec["model"] == "gemm":
        products = model_products(size, batches[0].target_tokens)
        return lambda number: gemm_rates(products)
    if spec["model"] == "seqba":
        update = our_update(size, spec["copies"], spec.get("shards", 1))
    else:
        update = marian_update(size, spec["copies"])
    return lambda number: seconds(lambda: update(batches[number % BATCHES], number))


def our_update(
    size: Size, copies: int, micro_batches: int, *, dtype: torch.dtype | None = None, plan: str = "auto"
) -> Callable[[Any, int], None]:
    """An update as seqba's trainer makes it; under autocast in `dtype`, where that isn't None."""
    model = build_ours(size).train()
    optimizer = build_optimizer(model.parameters(), OptimisationOptions())
    optimizer.param_groups[0]["lr"] = LEARNING_RATE
    measured, loss = parse_plan(plan), under_autocast(fused_loss, dtype)

    def update(batch: Any, number: int) -> None:
        weight, rows = copies * batch.target_tokens, cut(batch, micro_batches)
        with shared_casts():
            grid_gradient(model, rows, loss, copies=copies, weight=weight, plan=measured, update=number)
        optimizer.step()
        optimizer.zero_grad()

    return update


def marian_update(size: Size, copies: int, dtype: torch.dtype | None = None) -> Callable[[Any, int], None]:
    """An update as a plain loop makes it; under autocast in `dtype`, where that isn't None."""
    from marian import build_marian, mean_loss  # here: importing transformers costs memory, and only this side's

    model = build_marian(size).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    loss = under_autocast(mean_loss, dtype)

    def update(batch: Any, number: int) -> None:
        for _ in range(copies):
            (loss(model, batch) / copies).backward()
        optimizer.step()
        optimizer.zero_grad()

    return update


def model_products(size: Size, tokens: int) -> list[tuple[int, int, int]]:
    """The shapes of the model's own products, and a large square one."""
    width, inner = size.embed_dim, size.ffn_dim
    shapes = ((width, width), (width, 3 * width), (width, inner), (inner, width), (width, VOCABULARY))
    return [(tokens, *shape) for shape in shapes] + [(2048, 2048, 2048)]


def measure(name: str, copies: int, options: Any) -> tuple[list[Row], dict[str, float]]:
    """The rows of one size and number of copies, and the best rate of each single product."""
    common = {"size": name, "copies": copies, "max_tokens": options.max_tokens, "threads": options.threads}
    specs = {side: {**common, **spec} for side, spec in SIDES.items()}
    answers, peaks = take_turns(__file__, {**specs, "gemm": {**common, "model": "gemm"}}, options.rounds)
    rates = {shape: max(round_[shape] for round_ in answers["gemm"]) for shape in answers["gemm"][0]}
    batches = training_batches(BATCHES, max_tokens=options.max_tokens)
    order = [batches[number % BATCHES] for number in range(1, options.rounds + 1)]
    tokens = [copies * batch.target_tokens for batch in order]
    work = [copies * training_flops(SIZES[name], batch) for batch in order]
    rows: list[Row] = [
        {
            "size": name,
            "copies": copies,
            "side": side,
            "s/update": statistics.median(answers[side]),
            "tokens/s": statistics.median(n / s for n, s in zip(tokens, answers[side], strict=True)),
            "of GEMM": statistics.median(w / s for w, s in zip(work, answers[side], strict=True)) / max(rates.values()),
            "x Marian": median_ratio(answers["Marian"], answers[side]),
            "peak MB": peaks[side],
            "memory": peaks[side] / peaks["Marian"],
        }
        for side in SIDES
    ]
    return rows, rates


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures each size with each number of copies."""
    options = parse_options(__doc__, arguments, sizes=["base", "small"], copies=[1, 4], rounds=8, max_tokens=4096)
    if options.side:
        serve(options.side, build_side)
        return 0
    if options.quick:
        options.sizes, options.copies, options.rounds, options.max_tokens = ["tiny"], [2], 1, 256
    rows: list[Row] = []
    rates: dict[str, Any] = {}
    for name in options.sizes:
        for copies in options.copies:
            measured, of_products = measure(name, copies, options)
            rows += measured
            shape = max(of_products, key=lambda product: of_products[product])
            rates[f"{name}, {copies} copies: best product {shape}, GFLOP/s"] = round(of_products[shape] / 1e9, 1)
            rates[f"{name}, {copies} copies: all products, GFLOP/s"] = {
                k: round(v / 1e9, 1) for k, v in of_products.items()
            }
    report("Training throughput", rows, options, **rates)
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
