"""One merged update: time and peak memory of each plan, against as many plain passes.

    python recipes/bench/merged_update.py [--sizes small] [--copies 1 2 4 8] [--rounds 5] [--json FILE]

One measurement fills the gradients once: no optimizer. Dropout 0.1, label smoothing 0.1, --max-tokens 4096, lengths
of Multi30k, vocabulary 8,000. Sides, each in its own process, all with freed memory kept:

    plain       the same model in a plain loop: M times (loss / M).backward(), ordinary dropout; what merging must not
                cost more than
    looped      merged_gradient, one copy per pass
    stacked     merged_gradient, all copies in one pass
    auto        merged_gradient, as many copies per pass as it thinks fit

"time" is the median over rounds of the time over plain's in the same round, "memory" the peak of the process over
plain's.

Expectation: looped and auto at most 1.0 in time and memory (keyed noise costs nothing), whatever the number of
copies.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from harness import Row, median_ratio, parse_options, report, seconds, serve, take_turns
from workload import SIZES, build_ours, fused_loss, training_batches

from seqba import merged_gradient
from seqba.cli.command import run as run_command

BATCHES = 4
PLANS = ("plain", "looped", "stacked", "auto")


def build_side(spec: Mapping[str, Any]) -> Callable[[int], float]:
    """A child's measurement: seconds until the gradients of M copies are there."""
    torch.manual_seed(1)
    model = build_ours(SIZES[spec["size"]]).train()
    batches = training_batches(BATCHES, max_tokens=spec["max_tokens"])
    copies, plan = spec["copies"], spec["plan"]

    def plain(number: int) -> None:
        for _ in range(copies):
            loss, weight = fused_loss(model, batches[number % BATCHES])
            (loss / (weight * copies)).backward()

    def merged(number: int) -> None:
        merged_gradient(model, batches[number % BATCHES], fused_loss, copies=copies, plan=plan, update=number)

    work = plain if plan == "plain" else merged

    def measure(number: int) -> float:
        model.zero_grad()
        return seconds(lambda: work(number))

    return measure


def measure(size: str, copies: int, options: Any) -> list[Row]:
    """The rows of one size and number of copies."""
    common = {
        "size": size,
        "copies": copies,
        "max_tokens": options.max_tokens,
        "threads": options.threads,
        "keep_memory": True,
    }
    answers, peaks = take_turns(__file__, {plan: {**common, "plan": plan} for plan in PLANS}, options.rounds)
    return [
        {
            "size": size,
            "copies": copies,
            "plan": plan,
            "s/update": statistics.median(answers[plan]),
            "time": median_ratio(answers[plan], answers["plain"]),
            "peak MB": peaks[plan],
            "memory": peaks[plan] / peaks["plain"],
        }
        for plan in PLANS
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures each size with each number of copies."""
    options = parse_options(__doc__, arguments, sizes=["small"], copies=[1, 2, 4, 8], rounds=5, max_tokens=4096)
    if options.side:
        serve(options.side, build_side)
        return 0
    if options.quick:
        options.sizes, options.copies, options.rounds, options.max_tokens = ["tiny"], [2], 1, 256
    rows = [row for size in options.sizes for copies in options.copies for row in measure(size, copies, options)]
    report("One merged update", rows, options)
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
