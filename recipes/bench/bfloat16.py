"""Updates in bfloat16 (autocast) against the same updates in float32, and against Marian's in both.

    python recipes/bench/bfloat16.py [--models base small awd-lstm resnet44] [--rounds 5] [--batches 4] [--json FILE]

Needs the extra `bench` (pip install -e .[bench]) for the Transformers.

One measurement is one update, as training_throughput.py, awd_lstm.py and images.py make it: 4,096 tokens through the
base or small Transformer with Adam; 20 streams of 70 words through the AWD-LSTM of the paper; 64 pictures through
ResNet44. Weights, gradients and the optimizer are float32; passes run one copy at a time, and share the casts of the
weights as seqba-train's do. Each side is a process of its own with freed memory kept; Marian is a plain loop.

The Transformers go through `--batches` distinct batches again and again. With more batches than rounds each update has
other numbers of tokens, as in the first epoch of a run, and pays for kernels that a library compiles for new shapes.

"work" is the processor's seconds of an update, "s/update" the clock's: on a machine that others use as well, ratios of
work tell more. "x float32" and "x Marian" are medians over rounds of the ratio of work within a round: speed over that
of the same side in float32, and over Marian's in the same dtype. "GFLOP/s" is the rate of the products' operations by
work, which is that of one thread; "of GEMM" is it over that of the best single product of this dtype in the same run,
by work too.

Expectation: on a processor with AMX bfloat16 is at least 2.5 times as fast as float32 at base, 2 at the AWD-LSTM, 1.5
at ResNet44; docs/benchmarks.md has what was reached, and where.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from time import process_time
from typing import Any

import awd_lstm
import images
import torch
from harness import Row, gemm_rates, median_ratio, parse_options, report, seconds, serve, take_turns
from training_throughput import marian_update, our_update
from workload import SIZES, training_batches, training_flops

from seqba.cli.command import run as run_command
from seqba.tasks.image_views import ViewOptions, training_view

PRODUCT = (4096, 512, 2048)
DTYPES = {"float32": None, "bfloat16": torch.bfloat16}
Update = Callable[[int], object]


def build_side(spec: Mapping[str, Any]) -> Callable[[int], Any]:
    """A child's measurement: clock, work and operations of update `number`, or the best rate of a single product."""
    torch.manual_seed(1)
    dtype = DTYPES[spec["dtype"]]
    if spec["side"] == "product":
        return lambda number: max(gemm_rates([PRODUCT], dtype=dtype or torch.float32, clock=process_time).values())
    update, flops = build_update(spec, dtype)

    def measure(number: int) -> dict[str, float]:
        begin = process_time()
        elapsed = seconds(lambda: update(number))
        return {"clock": elapsed, "work": process_time() - begin, "flops": flops(number)}

    return measure


def build_update(spec: Mapping[str, Any], dtype: torch.dtype | None) -> tuple[Update, Callable[[int], float]]:
    """An update of a model, and how many operations its products need."""
    name, copies = spec["model"], spec["copies"]
    if name == "awd-lstm":
        size = awd_lstm.SIZES["paper"]
        text = torch.randint(0, size.vocabulary, (awd_lstm.STREAMS, awd_lstm.LENGTH + 1))
        update = awd_lstm.our_update(size, {"plan": "looped", "shared": False, "copies": copies}, text, dtype)
        words = copies * awd_lstm.STREAMS * awd_lstm.LENGTH
        return update, lambda number: words * size.flops
    if name in images.SIDES:
        of_images = {"network": name, "batch": 64, "copies": copies, "plan": "looped"}
        side, read = images.SIDES[name], images.random_batches(of_images)
        view = training_view(ViewOptions(cutout=side // 2), side)
        step = images.build_update(of_images, view, torch.device("cpu"), dtype)
        return lambda number: step(read(number), number), lambda number: copies * 64 * images.flops_of_image(name)
    batches = training_batches(spec["batches"], max_tokens=spec["max_tokens"])
    if spec["side"] == "Marian":
        translate = marian_update(SIZES[name], copies, dtype)
    else:
        translate = our_update(SIZES[name], copies, 1, dtype=dtype, plan="looped")
    costs = [copies * training_flops(SIZES[name], batch) for batch in batches]
    return lambda number: translate(batches[number % len(batches)], number), lambda number: costs[number % len(batches)]


def measure(name: str, options: Any) -> list[Row]:
    """The rows of one model."""
    common = {"model": name, "keep_memory": True}
    common |= {option: getattr(options, option) for option in ("copies", "max_tokens", "threads", "batches")}
    sides = ["seqba", "Marian"] if name in SIZES else ["seqba"]
    specs = {
        f"{side} {dtype}": {**common, "side": side, "dtype": dtype} for side in [*sides, "product"] for dtype in DTYPES
    }
    answers, peaks = take_turns(__file__, specs, options.rounds)
    rows: list[Row] = []
    for side in sides:
        for dtype in DTYPES:
            own = answers[f"{side} {dtype}"]
            work = [answer["work"] for answer in own]
            rate = statistics.median(answer["flops"] / answer["work"] for answer in own)
            row: Row = {
                "model": name,
                "side": side,
                "dtype": dtype,
                "s/update": statistics.median(answer["clock"] for answer in own),
                "work": statistics.median(work),
                "GFLOP/s": rate / 1e9,
                "of GEMM": rate / max(answers[f"product {dtype}"]),
                "x float32": median_ratio((answer["work"] for answer in answers[f"{side} float32"]), work),
            }
            theirs = answers.get(f"Marian {dtype}", own)
            row["x Marian"] = median_ratio((answer["work"] for answer in theirs), work) if name in SIZES else "-"
            rows.append({**row, "peak MB": peaks[f"{side} {dtype}"]})
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures every model."""
    names = ["base", "small", "awd-lstm", "resnet44"]
    options = parse_options(__doc__, arguments, models=names, copies=1, rounds=5, max_tokens=4096, batches=4)
    if options.side:
        serve(options.side, build_side)
        return 0
    if options.quick:
        options.models, options.rounds, options.max_tokens = ["tiny", "resnet8"], 1, 256
    report("Updates in bfloat16", [row for name in options.models for row in measure(name, options)], options)
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
