"""Keyed dropout against torch's own: seqba.nn.Dropout inside an update, against F.dropout on the same tensor.

    python recipes/bench/keyed_dropout.py [--rounds 30] [--json FILE]

One measurement drops from a float32 tensor with probability 0.1 and runs the backward. Both in one process, in turns,
freed memory kept for both. "ratio" is the median over rounds of keyed over F.dropout, below 1 where keyed is faster.

Expectation: at most 1 at every size of a model, forward and backward together (0.29 to 0.42 on two AMD cores, where
torch draws one number after the other). The backward alone is up to 1.9: it turns bytes into numbers again.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from harness import Row, median_ratio, parse_options, report, seconds

from seqba.cli.command import run as run_command
from seqba.core import Noise, noise_context
from seqba.nn import Dropout
from seqba.runtime.memory import keep_freed_memory

P = 0.1
# Rows of a pass and their width, and how many copies the rows are of. 4,000 tokens are a --max-tokens 4096 batch.
CASES = [(1000, 256, 1), (4000, 512, 1), (4000, 2048, 1), (16000, 512, 4), (16000, 2048, 4), (64 * 8 * 20, 20, 1)]
QUICK_CASES = [(64, 32, 1), (64, 32, 4)]


def forward_and_backward(
    drop: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, grad: torch.Tensor
) -> list[float]:
    """Seconds of both."""
    results: list[torch.Tensor] = []
    x.grad = None
    forward = seconds(lambda: results.append(drop(x)))
    backward = seconds(lambda: results[0].backward(grad))
    return [forward, backward]


def measure(rows: int, width: int, copies: int, rounds: int) -> list[Row]:
    """The rows of the table for one tensor."""
    x, grad = torch.randn(rows, width, requires_grad=True), torch.randn(rows, width)
    module = Dropout(P).train()
    times: dict[str, list[list[float]]] = {"keyed": [], "F.dropout": []}
    for update in range(rounds + 3):
        with noise_context(Noise(seed=1, update=update, micro_batch=0, copies=range(copies))):
            times["keyed"].append(forward_and_backward(module, x, grad))
        times["F.dropout"].append(forward_and_backward(lambda x: torch.nn.functional.dropout(x, P), x, grad))
    sides = {name: torch.tensor(measured[3:]) for name, measured in times.items()}
    parts = {
        "forward": {name: side[:, 0].tolist() for name, side in sides.items()},
        "backward": {name: side[:, 1].tolist() for name, side in sides.items()},
        "both": {name: side.sum(1).tolist() for name, side in sides.items()},
    }
    return [
        {
            "rows": rows,
            "width": width,
            "copies": copies,
            "part": part,
            "keyed ms": 1e3 * statistics.median(of["keyed"]),
            "F.dropout ms": 1e3 * statistics.median(of["F.dropout"]),
            "ratio": median_ratio(of["keyed"], of["F.dropout"]),
        }
        for part, of in parts.items()
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures every case."""
    options: Any = parse_options(__doc__, arguments, rounds=30)
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    if options.quick:
        options.rounds = 2
    cases = QUICK_CASES if options.quick else CASES
    report("Keyed dropout", [row for case in cases for row in measure(*case, options.rounds)], options)
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
