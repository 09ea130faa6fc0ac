"""Single float32 products through oneDNN (seqba.nn.kernels.products) and through torch.mm, in pairs.

    python recipes/bench/products.py [--rounds 15] [--json FILE]

The shapes are those of the base Transformer's layers with 4,096 tokens, and of the loss's chunks: forward (x·Wᵀ),
gradient by the input (g·W) and by the weight (gᵀ·x). "time" is the median over rounds of oneDNN's time over torch.mm's;
below 1 oneDNN is faster. Freed memory is kept, as in training.

Expectation: depends on the processor; below 1 for most shapes on AMD's.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence

import torch
from harness import Row, parse_options, report, seconds

from seqba.nn.kernels.products import HAS_ONEDNN, product
from seqba.runtime.memory import keep_freed_memory

SHAPES = ((4096, 512, 512), (4096, 512, 1536), (4096, 512, 2048), (4096, 2048, 512), (262, 512, 8000))


def measure(tokens: int, inputs: int, outputs: int, rounds: int) -> list[Row]:
    """The three products of one linear layer."""
    x, weight, upstream = torch.randn(tokens, inputs), torch.randn(outputs, inputs), torch.randn(tokens, outputs)
    pairs = {"forward": (x, weight), "by input": (upstream, weight.t()), "by weight": (upstream.t(), x.t())}
    rows: list[Row] = []
    for name, (a, b) in pairs.items():
        ours, theirs = [], []
        for _ in range(rounds + 1):
            ours.append(seconds(lambda a=a, b=b: product(a, b)))
            theirs.append(seconds(lambda a=a, b=b: torch.mm(a, b.t())))
        work = 2 * tokens * inputs * outputs / 1e9
        rows.append(
            {
                "tokens": tokens,
                "layer": f"{inputs}x{outputs}",
                "product": name,
                "oneDNN GFLOP/s": work / statistics.median(ours[1:]),
                "torch.mm GFLOP/s": work / statistics.median(theirs[1:]),
                "time": statistics.median(o / t for o, t in zip(ours[1:], theirs[1:], strict=True)),
            }
        )
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures every shape."""
    options = parse_options(__doc__, arguments, rounds=15)
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    shapes = [(64, 32, 48)] if options.quick else SHAPES
    rows = [row for shape in shapes for row in measure(*shape, 2 if options.quick else options.rounds)]
    report("Products", rows, options, oneDNN=HAS_ONEDNN)
    return 0


if __name__ == "__main__":
    sys.exit(main())
