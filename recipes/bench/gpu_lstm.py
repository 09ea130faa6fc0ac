"""Stacked copies of the AWD-LSTM on a GPU: a kernel a step, torch's operations, or cuDNN for one copy after the other.

    python recipes/bench/gpu_lstm.py [--sizes paper small] [--copies 2 4 10] [--dtypes float32 bfloat16] [--json FILE]
    python recipes/bench/gpu_lstm.py --device cpu --quick         # see that it runs

One update of windows of 70 words in 20 streams, clipping and a step of SGD included (awd_lstm.py). Sides, in turns, two
updates at a time; the median of the rounds after the first is reported:

    kernel      `seqba.nn.kernels.fused_lstm`: a time step is a batched product and one kernel; what seqba takes
    torch       the same in torch's operations: what it takes without Triton
    cuDNN       torch's LSTM for one copy after the other, whose weights differ
    plain       cuDNN over the rows of all copies, which share their weight noise (plain_awd_lstm.py, float32)
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any
from unittest import mock

import awd_lstm
import torch
from awd_lstm import LENGTH, SIZES, STREAMS, Size
from harness import Row, parse_options, report
from torch import Tensor

from seqba.cli.command import run as run_command
from seqba.nn import WeightDroppedLSTM
from seqba.nn.kernels import masked_lstm

UPDATES = 2
Update = Callable[[int], object]
DTYPES = {"float32": None, "bfloat16": torch.bfloat16}


def build_sides(size: Size, copies: int, text: Tensor, dtype: torch.dtype | None) -> dict[str, Update]:
    """An update of each side, by its name."""
    spec = {"copies": copies, "plan": "stacked", "shared": False}
    sides: dict[str, Update] = {}
    for name in ("kernel", "torch", "cuDNN"):
        torch.manual_seed(1)
        sides[name] = _as_side(name, awd_lstm.our_update(size, spec, text, dtype))
    if dtype is None:
        torch.manual_seed(1)
        sides["plain"] = awd_lstm.plain_update(size, spec, text)
    return sides


def _as_side(name: str, update: Update) -> Update:
    """An update whose LSTM goes a side's way."""
    ways = {
        "torch": (masked_lstm, "has_fused_cell", lambda device: False),
        "cuDNN": (WeightDroppedLSTM, "_batched", WeightDroppedLSTM._copy_after_copy),
    }
    if name not in ways:
        return update

    def changed(number: int) -> None:
        with mock.patch.object(*ways[name]):
            update(number)

    return changed


def measure(sides: dict[str, Update], rounds: int, device: torch.device) -> dict[str, float]:
    """Seconds of an update of each side."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name, update in sides.items():
            begin = time.perf_counter()
            for step in range(UPDATES):
                update(number * UPDATES + step)
            if device.type == "cuda":
                torch.cuda.synchronize()
            times[name].append((time.perf_counter() - begin) / UPDATES)
    return {name: statistics.median(measured[1:]) for name, measured in times.items()}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures each size, dtype and number of copies."""
    options = parse_options(
        __doc__, arguments, sizes=["paper", "small"], copies=[2, 4, 10], dtypes=list(DTYPES), rounds=3, device="cuda"
    )
    if options.quick:
        options.sizes, options.copies, options.rounds = ["tiny"], [2], 1
    device, rows = torch.device(options.device), []
    for name in options.sizes:
        size = SIZES[name]
        generator = torch.Generator().manual_seed(2)
        text = torch.randint(0, size.vocabulary, (STREAMS, LENGTH + 1), generator=generator).to(device)
        for dtype in options.dtypes:
            for copies in options.copies:
                seconds = measure(build_sides(size, copies, text, DTYPES[dtype]), options.rounds, device)
                shown = {side: 1e3 * value for side, value in seconds.items()}
                rows.append({"size": name, "dtype": dtype, "copies": copies, **shown})
    where: dict[str, Any] = {"device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu"}
    report("Milliseconds of an update of the AWD-LSTM, all copies stacked", _complete(rows), options, **where)
    return 0


def _complete(rows: list[Row]) -> list[Row]:
    """The rows with the same columns."""
    return [{**row, "plain": row.get("plain", "")} for row in rows]


if __name__ == "__main__":
    sys.exit(run_command(main))
