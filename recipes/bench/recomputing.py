"""What --checkpoint-activations saves: peak memory and time of an update at base, four copies stacked.

    python recipes/bench/recomputing.py [--size base] [--copies 4] [--max-tokens 1024] [--rounds 3] [--json FILE]

Two sides in turns, each in its own process: the same model and loss, the same batch of Multi30k's lengths, all copies
in one pass, gradients and Adam's step:

    kept         what each layer's backward needs is kept from its forward
    recomputed   each layer's input is kept, and the rest computed again

"memory" is the peak of the process over that of "kept"; "time" and "work" are medians over rounds of the update's time,
and of the processor's, over those of "kept" in the same round. "gradient" is the relative difference of both sides'
gradient norms, which must be 0.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from time import process_time
from typing import Any

import torch
from harness import Row, parse_options, report, seconds, serve, take_turns
from workload import SIZES, build_ours, fused_loss, training_batches

from seqba import merged_gradient
from seqba.models.layers import recompute_layers
from seqba.training.optimizers import build_optimizer
from seqba.training.options import OptimisationOptions

SIDES = {"kept": False, "recomputed": True}


def build_side(spec: Mapping[str, Any]) -> Callable[[int], list[float]]:
    """A child's measurement: seconds of an update, of the processor as well, and the norm of its gradient."""
    torch.manual_seed(1)
    model = build_ours(SIZES[spec["size"]], vocabulary=spec["vocabulary"]).train()
    if spec["recompute"]:
        recompute_layers(model)
    (batch,) = training_batches(1, max_tokens=spec["max_tokens"], vocabulary=spec["vocabulary"])
    optimizer = build_optimizer(model.parameters(), OptimisationOptions())
    norms: list[float] = []

    def update(number: int) -> None:
        merged_gradient(model, batch, fused_loss, copies=spec["copies"], plan="stacked", update=number)
        norms.append(float(torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])))
        optimizer.step()
        optimizer.zero_grad()

    def measure(number: int) -> list[float]:
        begin = process_time()
        return [seconds(lambda: update(number)), process_time() - begin, norms[-1]]

    return measure


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures both sides."""
    options = parse_options(__doc__, arguments, size="base", vocabulary=8000, copies=4, max_tokens=1024, rounds=3)
    if options.side:
        serve(options.side, build_side)
        return 0
    if options.quick:
        options.size, options.vocabulary, options.copies, options.max_tokens, options.rounds = "tiny", 500, 2, 256, 1
    spec = {name: getattr(options, name) for name in ("size", "vocabulary", "copies", "max_tokens", "threads")}
    specs = {name: {**spec, "recompute": recompute, "keep_memory": True} for name, recompute in SIDES.items()}
    answers, peaks = take_turns(__file__, specs, rounds=options.rounds)
    rows: list[Row] = []
    for name, measured in answers.items():
        pairs = list(zip(measured, answers["kept"], strict=True))
        rows.append(
            {
                "side": name,
                "peak MB": peaks[name],
                "memory": peaks[name] / peaks["kept"],
                "s/update": statistics.median(each[0] for each in measured),
                "time": statistics.median(own[0] / kept[0] for own, kept in pairs),
                "work": statistics.median(own[1] / kept[1] for own, kept in pairs),
                "gradient": max(abs(own[2] / kept[2] - 1) for own, kept in pairs),
            }
        )
    report("Peak memory and time with layers computed again", rows, options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
