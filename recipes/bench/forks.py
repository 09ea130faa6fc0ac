"""Copies that begin inside a model: time and memory at each fork, against whole copies and against a single pass.

    python recipes/bench/forks.py [--models base awd_lstm vgg16_bn] [--copies 4 8] [--rounds 5] [--json FILE]

One measurement fills the gradients once: no optimizer. Models, each with the forks that its family has a use for:

    base        Transformer base, vocabulary 32,000, dropout 0.1, lengths of Multi30k
    small       the same of 3+3 layers of width 256, vocabulary 8,000
    awd_lstm    3 layers of 1,150, embedding 400, vocabulary 10,000, 20 rows of 70 words, the released dropouts
    awd_lstm_small   3 layers of 400, embedding 200, vocabulary 5,000, 20 rows of 35 words
    vgg16_bn    32 pictures of 32×32
    alexnet     8 pictures of 224×224

Sides, each in its own process: one pass (M = 1), M whole copies in one pass and one by one, and M copies from each fork
on, likewise. "time" is the median over rounds of the time over that of M = 1 in the same round; "formula" is what it
should be, f + M·(1 − f), with "1 − f" the share of multiplications above the fork; "of whole" is the time over that of
whole copies under the same plan; "memory" is the peak of the process over that of M = 1. `--clock cpu` takes the
processor's time of each side in place of the clock on the wall, where others keep the machine busy.

Expectation: at base with the encoder below, M = 4 in at most 2.95 of one pass.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from time import perf_counter, process_time
from typing import Any

import torch
from fork_cases import case_of
from harness import Row, median_ratio, parse_options, report, serve, take_turns

import seqba
from seqba.cli.command import run as run_command

BATCHES = 3


def build_side(spec: Mapping[str, Any]) -> Callable[[int], float]:
    """A child's measurement: seconds until the gradients are there."""
    torch.manual_seed(1)
    case = case_of(spec["model"], quick=spec["quick"], max_tokens=spec["max_tokens"])
    model, batches, place = case.build().train(), case.batches(BATCHES), spec["place"]
    model.fork_at(place)
    clock = {"wall": perf_counter, "cpu": process_time}[spec["clock"]]

    def merged(number: int) -> None:
        batch = batches[number % BATCHES]
        options = {"copies": spec["copies"], "plan": spec["plan"], "forked": place is not None}
        seqba.merged_gradient(model, batch, case.loss, update=number, **options)

    def measure(number: int) -> float:
        model.zero_grad()
        begin = clock()
        merged(number)
        return clock() - begin

    return measure


def measure(name: str, copies: int, options: Any) -> list[Row]:
    """The rows of one model and number of copies."""
    case = case_of(name, quick=options.quick, max_tokens=options.max_tokens)
    common = {
        "model": name,
        "quick": options.quick,
        "max_tokens": options.max_tokens,
        "clock": options.clock,
        "threads": options.threads,
        "keep_memory": True,
    }
    sides = {("one", "stacked"): {**common, "place": None, "copies": 1, "plan": "stacked"}}
    for place in (None, *case.forks):
        for plan in ("stacked", "looped"):
            sides[place or "whole", plan] = {**common, "place": place, "copies": copies, "plan": plan}
    answers, peaks = take_turns(__file__, sides, options.rounds)
    one = answers["one", "stacked"]
    rows: list[Row] = []
    for (place, plan), times in answers.items():
        if place == "one":
            continue
        share = case.forks.get(place, 0.0)
        rows.append(
            {
                "model": name,
                "M": copies,
                "fork": place,
                "plan": plan,
                "s/update": statistics.median(times),
                "1 − f": 1 - share,
                "time": median_ratio(times, one),
                "formula": share + copies * (1 - share),
                "of whole": median_ratio(times, answers["whole", plan]),
                "memory": peaks[place, plan] / peaks["one", "stacked"],
            }
        )
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures each model with each number of copies."""
    options = parse_options(
        __doc__,
        arguments,
        models=["base", "awd_lstm", "vgg16_bn"],
        copies=[4, 8],
        rounds=5,
        max_tokens=1024,
        clock="wall",
    )
    if options.side:
        serve(options.side, build_side)
        return 0
    if options.quick:
        options.models, options.copies, options.rounds = ["tiny"], [2], 1
    rows = [row for name in options.models for copies in options.copies for row in measure(name, copies, options)]
    report("Copies that begin inside a model", rows, options)
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
