"""Keyed noise in a model of others: time and peak memory of an update of Hugging Face's Marian, against a plain loop.

    python recipes/bench/keyed.py [--size small] [--copies 4] [--attention-dropout 0.0] [--rounds 5] [--json FILE]

One measurement fills the gradients once: no optimizer. Dropout 0.1, label smoothing 0.1, --max-tokens 4096, lengths
of Multi30k, vocabulary 8,000, torch's fused attention. Sides, each in its own process, all with freed memory kept:

    plain       a loop as anybody writes it: M times (loss / M).backward(), torch's own noise
    copies      the same loop over seqba.copies: keyed noise
    looped      merged_gradient(keyed=True), one copy per pass
    stacked     merged_gradient(keyed=True), all copies in one pass

"time" is the median over rounds of the time over plain's in the same round; "work" the same of processor seconds, over
all threads, which tells more where others use the machine; "memory" the peak of the process over plain's. With
--attention-dropout above 0 a keyed pass computes attention without the fused kernel, whose noise has no key; on a CPU
torch does so too.

Expectation: copies and looped at most 1.05 in time and work, and about 1 in memory.

Needs transformers (pip install -e .[bench]).
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from time import process_time
from typing import Any

import torch
from harness import Row, median_ratio, parse_options, report, seconds, serve, take_turns
from workload import SIZES, training_batches

import seqba
from seqba.cli.command import run as run_command

BATCHES = 4
SIDES = ("plain", "copies", "looped", "stacked")


def build_side(spec: Mapping[str, Any]) -> Callable[[int], list[float]]:
    """A child's measurement: seconds until the gradients of M copies are there, by the clock and of processors."""
    from marian import build_marian, mean_loss, plain_backward  # so that --help needs no transformers

    torch.manual_seed(1)
    model = build_marian(SIZES[spec["size"]], attention_dropout=spec["attention_dropout"]).train()
    batches = training_batches(BATCHES, max_tokens=spec["max_tokens"])
    copies, side = spec["copies"], spec["side"]

    def work(number: int) -> None:
        batch = batches[number % BATCHES]
        if side == "plain":
            for _ in range(copies):
                plain_backward(model, batch, copies)
        elif side == "copies":
            for pass_ in seqba.copies(model, copies, update=number):
                with pass_:
                    plain_backward(model, batch, copies)
        else:
            seqba.merged_gradient(model, batch, mean_loss, copies=copies, plan=side, update=number, keyed=True)

    def measure(number: int) -> list[float]:
        model.zero_grad()
        begin = process_time()
        elapsed = seconds(lambda: work(number))
        return [elapsed, process_time() - begin]

    return measure


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures every side."""
    options = parse_options(
        __doc__, arguments, size="small", copies=4, attention_dropout=0.0, rounds=5, max_tokens=4096
    )
    if options.side:
        serve(options.side, build_side)
        return 0
    if options.quick:
        options.size, options.copies, options.rounds, options.max_tokens = "tiny", 2, 1, 256
    common = {name: getattr(options, name) for name in ("size", "copies", "attention_dropout", "max_tokens", "threads")}
    specs = {side: {**common, "side": side, "keep_memory": True} for side in SIDES}
    answers, peaks = take_turns(__file__, specs, options.rounds)
    clock, processors = ({side: [answer[i] for answer in answers[side]] for side in SIDES} for i in range(2))
    rows: list[Row] = [
        {
            "side": side,
            "s/update": statistics.median(clock[side]),
            "time": median_ratio(clock[side], clock["plain"]),
            "work": median_ratio(processors[side], processors["plain"]),
            "peak MB": peaks[side],
            "memory": peaks[side] / peaks["plain"],
        }
        for side in SIDES
    ]
    report("Keyed noise in Marian", rows, options)
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
