"""Single products through oneDNN's linear layer and through torch.mm, in pairs, and which of them training takes.

    python recipes/bench/products.py [--dtypes float32 bfloat16] [--rounds 15] [--json FILE]

The shapes are those of the base Transformer's layers with 4,096 tokens, and of the loss's chunks: forward (x·Wᵀ + b),
gradient by the input (g·W) and by the weight (gᵀ·x). torch.mm is MKL's in float32 and oneDNN's in bfloat16. "time" is
the median over rounds of the processor's seconds of oneDNN's linear layer over torch.mm's; below 1 it is faster.
"taken" is what `seqba.nn.kernels.products` takes on this processor, and its rate. Freed memory is kept, as in training.

Expectation: depends on the processor. float32 below 1 for most shapes on AMD's, above 1 by the weight on Intel's.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from time import process_time

import torch
from harness import Row, parse_options, report, seconds
from torch import nn

from seqba.cli.command import run as run_command
from seqba.nn.kernels.processor import processor
from seqba.nn.kernels.products import HAS_ONEDNN, is_transposed_first, is_widened, product, takes_linear_operator
from seqba.runtime.memory import keep_freed_memory

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
LINEAR = torch.ops.mkldnn._linear_pointwise
SHAPES = ((4096, 512, 512), (4096, 512, 1536), (4096, 512, 2048), (4096, 2048, 512), (262, 512, 8000))


def measure(tokens: int, inputs: int, outputs: int, dtype: torch.dtype, rounds: int) -> list[Row]:
    """The three products of one linear layer."""
    x, weight, upstream, bias = (
        torch.randn(shape).to(dtype) for shape in ((tokens, inputs), (outputs, inputs), (tokens, outputs), (outputs,))
    )
    products = {
        "forward": (x, weight, bias),
        "by input": (upstream, weight.t(), None),
        "by weight": (upstream.t(), x.t(), None),
    }
    rows: list[Row] = []
    for name, (a, b, extra) in products.items():
        ours, theirs, taken = [], [], []
        for _ in range(rounds + 1):
            ours.append(seconds(lambda a=a, b=b, extra=extra: LINEAR(a, b, extra, "none", [], ""), process_time))
            theirs.append(seconds(lambda a=a, b=b, extra=extra: nn.functional.linear(a, b, extra), process_time))
            taken.append(seconds(lambda a=a, b=b, extra=extra: product(a, b, extra), process_time))
        work = 2 * tokens * inputs * outputs / 1e9
        rows.append(
            {
                "dtype": str(dtype).removeprefix("torch."),
                "tokens": tokens,
                "layer": f"{inputs}x{outputs}",
                "product": name,
                "oneDNN GFLOP/s": work / statistics.median(ours[1:]),
                "torch.mm GFLOP/s": work / statistics.median(theirs[1:]),
                "time": statistics.median(o / t for o, t in zip(ours[1:], theirs[1:], strict=True)),
                "taken GFLOP/s": work / statistics.median(taken[1:]),
                "taken": _taken(a, b, extra),
            }
        )
    return rows


def _taken(a: torch.Tensor, b: torch.Tensor, extra: torch.Tensor | None) -> str:
    if is_widened(a, a.dtype):
        return f"{_taken(a.float(), b.float(), extra)}, in float32"
    if takes_linear_operator(a, b, extra, processor()):
        return "oneDNN"
    return "transposed, torch.mm" if is_transposed_first(a, b, processor()) else "torch.mm"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures every shape."""
    options = parse_options(__doc__, arguments, dtypes=["float32", "bfloat16"], rounds=15)
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    shapes = [(64, 32, 48)] if options.quick else SHAPES
    rounds = 2 if options.quick else options.rounds
    rows = [row for name in options.dtypes for shape in shapes for row in measure(*shape, DTYPES[name], rounds)]
    report("Products", rows, options, oneDNN=HAS_ONEDNN)
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
