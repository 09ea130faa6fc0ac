"""Noise above a fork: the share that M copies still average, at the initial weights and after some training.

    python recipes/bench/fork_noise.py [--models small awd_lstm_small] [--examples 10] [--updates 100] [--json FILE]

A nested analysis of variance over single examples (`seqba.statistics.measure_noise_above`; `seqba-measure --fork` takes
it of a checkpoint). "first" and "after" are S_above / (S_above + S_below) before and after --updates of Adam, whose
rate rises to 0.001, on a task that can be learned: repeating the source, or words of which four in five follow from the
one before. A copy costs 1 − f of a pass (see `forks.py`) and averages this share of the noise. Models as in `forks.py`;
those of images have all their noise above, but for their views.

Expectation: at the initial weights the encoder below leaves four fifths of the Transformer's noise, and the last layer
a third. The shares move during training.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from fork_cases import Case, case_of
from harness import Row, parse_options, report

import seqba
from seqba.cli.command import run as run_command
from seqba.statistics import measure_noise_above

PEAK_LR = 1e-3


def noise_above(case: Case, model: Any, place: str, examples: int) -> float:
    """Share of the noise of a single example's gradient that is drawn above a fork."""
    model.fork_at(place)
    return measure_noise_above(model, _examples(case, examples), case.loss, seed=7).value


def _examples(case: Case, count: int) -> Iterator[Any]:
    (batch,) = case.batches(1)
    return (case.rows(batch, slice(number, number + 1)) for number in range(count))


def measure_noise(name: str, options: Any) -> list[Row]:
    """The rows of one model: at its initial weights, and after some updates."""
    torch.manual_seed(1)
    case = case_of(name, quick=options.quick, max_tokens=options.max_tokens)
    model = case.build().train()
    shares = [{place: noise_above(case, model, place, options.examples) for place in case.forks}]
    model.fork_at(None)
    optimizer, batches = torch.optim.Adam(model.parameters(), lr=PEAK_LR), case.batches(options.updates)
    for number, batch in enumerate(batches):
        seqba.merged_gradient(model, batch, case.loss, copies=1, update=number)
        for group in optimizer.param_groups:
            group["lr"] = PEAK_LR * (number + 1) / options.updates  # a post-norm Transformer needs a warm-up
        optimizer.step()
        optimizer.zero_grad()
    shares.append({place: noise_above(case, model, place, options.examples) for place in case.forks})
    return [
        {"model": name, "fork": place, "first": shares[0][place], "after": shares[1][place]} for place in case.forks
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures the noise at each fork of each model."""
    options = parse_options(
        __doc__, arguments, models=["small", "awd_lstm_small"], examples=10, updates=100, max_tokens=1024
    )
    if options.quick:
        options.models, options.examples, options.updates = ["tiny"], 2, 2
    torch.set_num_threads(options.threads)
    rows = [row for name in options.models for row in measure_noise(name, options)]
    report("Share of the noise that is above a fork", rows, options)
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
