"""What --checkpoint-activations and --compile save, and what they cost: peak memory and time of an update.

    python recipes/bench/layers.py [--size base] [--copies 4] [--max-tokens 1024] [--dtypes float32 bfloat16]
                                   [--sides recomputed compiled] [--rounds 3] [--json FILE]

Sides in turns, each in its own process: the same model and loss, the same batch of Multi30k's lengths, all copies in
one pass, gradients and Adam's step:

    kept         what each layer's backward needs is kept from its forward
    recomputed   each layer's input is kept, and the rest computed again
    compiled     layers are graphs of torch.compile; the round that isn't counted waits for the compiler

"memory" is the peak of the process over that of "kept", the compiler's included; "time" and "work" are medians over
rounds of the update's time, and of the processor's, over those of "kept" in the same round. "gradient" is the relative
difference of both sides' gradient norms, which must be 0 where layers are computed again, and of the size of rounding
where they are compiled.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from time import process_time
from typing import Any

import torch
from harness import Row, parse_options, report, seconds, serve, take_turns
from torch import nn
from workload import SIZES, build_ours, fused_loss, training_batches, under_autocast

from seqba import merged_gradient
from seqba.cli.command import run as run_command
from seqba.models import graphs
from seqba.models.layers import recompute_layers
from seqba.training.optimizers import build_optimizer
from seqba.training.options import OptimisationOptions

SIDES: dict[str, Callable[[nn.Module], None]] = {
    "kept": lambda _: None,
    "recomputed": recompute_layers,
    "compiled": graphs.compile_layers,
}
DTYPES = {"float32": None, "bfloat16": torch.bfloat16}


def build_side(spec: Mapping[str, Any]) -> Callable[[int], list[float]]:
    """A child's measurement: seconds of an update, of the processor as well, and the norm of its gradient."""
    torch.manual_seed(1)
    if spec["quick"]:
        graphs.BACKEND = "eager"
    model = build_ours(SIZES[spec["size"]], vocabulary=spec["vocabulary"]).train()
    SIDES[spec["side"]](model)
    (batch,) = training_batches(1, max_tokens=spec["max_tokens"], vocabulary=spec["vocabulary"])
    optimizer = build_optimizer(model.parameters(), OptimisationOptions())
    loss = under_autocast(fused_loss, DTYPES[spec["dtype"]])
    norms: list[float] = []

    def update(number: int) -> None:
        merged_gradient(model, batch, loss, copies=spec["copies"], plan="stacked", update=number)
        norms.append(float(torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])))
        optimizer.step()
        optimizer.zero_grad()

    def measure(number: int) -> list[float]:
        begin = process_time()
        return [seconds(lambda: update(number)), process_time() - begin, norms[-1]]

    return measure


def measure(dtype: str, options: Any) -> list[Row]:
    """The rows of one dtype."""
    spec = {name: getattr(options, name) for name in ("size", "vocabulary", "copies", "max_tokens", "threads", "quick")}
    specs = {side: {**spec, "side": side, "dtype": dtype, "keep_memory": True} for side in ["kept", *options.sides]}
    answers, peaks = take_turns(__file__, specs, rounds=options.rounds)
    rows: list[Row] = []
    for name, measured in answers.items():
        pairs = list(zip(measured, answers["kept"], strict=True))
        rows.append(
            {
                "dtype": dtype,
                "side": name,
                "peak MB": peaks[name],
                "memory": peaks[name] / peaks["kept"],
                "s/update": statistics.median(each[0] for each in measured),
                "time": statistics.median(own[0] / kept[0] for own, kept in pairs),
                "work": statistics.median(own[1] / kept[1] for own, kept in pairs),
                "gradient": max(abs(own[2] / kept[2] - 1) for own, kept in pairs),
            }
        )
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures the sides in each dtype."""
    options = parse_options(
        __doc__,
        arguments,
        size="base",
        vocabulary=8000,
        copies=4,
        max_tokens=1024,
        rounds=3,
        dtypes=list(DTYPES),
        sides=[name for name in SIDES if name != "kept"],
    )
    if options.side:
        serve(options.side, build_side)
        return 0
    if options.quick:
        options.size, options.vocabulary, options.copies, options.max_tokens, options.rounds = "tiny", 500, 2, 256, 1
    rows = [row for dtype in options.dtypes for row in measure(dtype, options)]
    report("Peak memory and time with layers computed again, and compiled", rows, options)
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
