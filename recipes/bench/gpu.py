"""Everything that is worth measuring on a GPU, in one process and within a budget of seconds.

    python recipes/bench/gpu.py [--budget-s 600] [--json recipes/bench/results/gpu.json] [--sections NAME...]
    python recipes/bench/gpu.py --device cpu --toy                # see that it runs
    python recipes/bench/gpu.py --page docs/benchmarks.md --json recipes/bench/results/gpu.json    # writes the tables

Needs the extra `bench` (pip install -e .[bench]); recipes/bench/gpu.sh makes an environment and calls it.

The sections, in this order; one that the budget has no time for is left out, and named:

    agree      what only a GPU can show: Triton's draws are torch's bit for bit, plans agree, and how often an update
               waits for the GPU and how many kernels it launches
    training   the base Transformer in bfloat16, 4,096 tokens: M = 1, 2, 4, 8, stacked, looped, forked, keyed, against
               Hugging Face's Marian under the same autocast and fused Adam
    memory     what holds memory at M = 4 stacked, vocabulary 32,000
    images     ResNet44 on 64 pictures of 32 × 32, in bfloat16
    lstm       the paper's AWD-LSTM at M = 10, float32
    decoding   beam 4 on the small model, float32, against Hugging Face's generate
    float32    the main sides of `training` without TF32

Sides of a section are alive together and measured in turns, four updates at a time; a ratio is taken within a round,
the median over rounds is reported, after a round that isn't counted. "peak MB above the model" is the most that torch
has allocated in a round of that side, less what the sides hold between rounds.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import torch
from gpu_checks import check_gpu, decoding_rows, memory_rows
from gpu_page import write_page
from gpu_sides import Setting, Update, float32_sides, image_sides, lstm_sides, training_sides
from harness import Row, median_ratio

from seqba.cli.command import run as run_command
from seqba.runtime.devices import choose_device

UPDATES = 4
PEAK = "peak MB above the model"
ROUNDS = 5


def measure(
    setting: Setting, sides: Mapping[str, Callable[[], Update]], base: str, deadline: float
) -> list[dict[str, Any]]:
    """Milliseconds of an update of each side, its speed against `base`'s with as many copies, and its peak memory."""
    updates = {name: make() for name, make in sides.items()}
    failed: dict[str, str] = {}
    times: dict[str, list[float]] = {name: [] for name in updates}
    peaks: dict[str, float] = {}
    for number in range(ROUNDS + 1):
        if number > 1 and time.monotonic() > deadline:
            break
        for name, update in [item for item in updates.items() if item[0] not in failed]:
            held = _allocated(setting.device)
            _reset_peak(setting.device)
            try:
                times[name].append(_seconds(setting.device, update, number) / UPDATES)
            except Exception as error:  # the other sides are worth their figures
                traceback.print_exc()
                failed[name] = type(error).__name__
            peaks[name] = _peak(setting.device) - held
    counted = {name: measured[1:] or measured for name, measured in times.items()}
    return [
        {
            "side": name,
            "ms/update": round(1e3 * statistics.median(counted[name]), 2),
            f"× {base}": round(_against(counted, name, base), 2),
            PEAK: round(peaks[name] / 1e6),
        }
        for name in updates
        if name not in failed
    ] + [{"side": name, "ms/update": f"failed: {why}", f"× {base}": "", PEAK: ""} for name, why in failed.items()]


def _against(times: Mapping[str, Sequence[float]], name: str, base: str) -> float:
    """The speed of a side relative to a base side of M = 1, copy for copy."""
    first = next(other for other in times if other.startswith(base))
    copies = _copies(name) / _copies(first)
    return copies * median_ratio(times[first], times[name])


def _copies(name: str) -> int:
    return int(name.partition("M=")[2].split()[0]) if "M=" in name else 10


def _seconds(device: torch.device, update: Update, number: int) -> float:
    _wait(device)
    begin = time.perf_counter()
    for step in range(UPDATES):
        update(UPDATES * number + step)
    _wait(device)
    return time.perf_counter() - begin


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _allocated(device: torch.device) -> float:
    return torch.cuda.memory_allocated() if device.type == "cuda" else 0.0


def _reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()


def _peak(device: torch.device) -> float:
    return torch.cuda.max_memory_allocated() if device.type == "cuda" else 0.0


def sections(device: torch.device, toy: bool) -> dict[str, tuple[str, Callable[[float], list[Row]]]]:
    """Title of each section, and what makes its rows by a deadline."""
    half = Setting(device, torch.bfloat16, toy)
    single = Setting(device, None, toy)
    return {
        "agree": ("What only a GPU can show", lambda _: check_gpu(half)),
        "training": (
            "Base Transformer, bfloat16, 4,096 tokens",
            lambda end: measure(half, training_sides(half), "Marian", end),
        ),
        "memory": ("Memory at M = 4 stacked, vocabulary 32,000, bfloat16", lambda _: memory_rows(half)),
        "images": ("ResNet44, 64 pictures, bfloat16", lambda end: measure(half, image_sides(half), "seqba", end)),
        "lstm": ("AWD-LSTM, M = 10, float32", lambda end: measure(single, lstm_sides(single), "plain", end)),
        "decoding": ("Beam 4, small Transformer, float32", lambda _: decoding_rows(single)),
        "float32": (
            "Base Transformer, float32 without TF32",
            lambda end: measure(single, float32_sides(single), "Marian", end),
        ),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the sections that the budget has time for; ends with status 1 where one failed."""
    options = _parse(arguments)
    if options.page:
        write_page(options.page, json.loads(options.json.read_text(encoding="utf-8")))
        return 0
    begin = time.monotonic()
    if options.device == "cuda" and not torch.cuda.is_available():
        sys.exit("error: there is no GPU here; --device cpu --toy tries the benchmark without one")
    device = choose_device(cpu=options.device == "cpu")
    chosen = {name: part for name, part in sections(device, options.toy).items() if name in options.sections}
    tables: list[dict[str, Any]] = []
    failed: dict[str, str] = {}
    for place, (name, (title, make)) in enumerate(chosen.items()):
        left = options.budget_s - (time.monotonic() - begin)
        if left < 5:
            failed[name] = "no time was left"
            continue
        started = time.monotonic()
        try:
            rows = make(started + left / (len(chosen) - place) * 1.5)
        except Exception as error:
            traceback.print_exc()
            failed[name] = f"{type(error).__name__}: {error}"[:200]
        else:
            tables.append({"name": name, "title": title, "rows": rows})
            _show(title, rows, time.monotonic() - started)
        if device.type == "cuda":
            torch.cuda.empty_cache()
        _write(options, device, tables, failed)
    for name, reason in failed.items():
        print(f"left out: {name} ({reason})")
    return int(any(reason != "no time was left" for reason in failed.values()))


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    names = list(sections(torch.device("cpu"), toy=True))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="(%(default)s)")
    parser.add_argument("--toy", action="store_true", help="tiny sizes: figures without meaning")
    parser.add_argument("--budget-s", type=float, default=600, help="seconds after which nothing begins (%(default)s)")
    parser.add_argument("--sections", nargs="+", choices=names, default=names, help="(all)")
    parser.add_argument("--json", type=Path, help="write the figures to this file, or read them for --page")
    parser.add_argument("--page", type=Path, help="write the tables of --json into this page, and measure nothing")
    options = parser.parse_args(arguments)
    if options.page and not options.json:
        parser.error("--page needs --json, the figures")
    return options


def _show(title: str, rows: Sequence[Mapping[str, Any]], elapsed_s: float) -> None:
    print(f"\n{title} ({elapsed_s:.1f} s)")
    for row in rows:
        print("  " + "  ".join(f"{name}: {value}" for name, value in row.items()), flush=True)


def _write(
    options: argparse.Namespace, device: torch.device, tables: list[dict[str, Any]], failed: Mapping[str, str]
) -> None:
    if not options.json:
        return
    content = {
        "command": "python recipes/bench/gpu.py" + (" --toy" if options.toy else ""),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else platform.machine(),
        "date": date.today().isoformat(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "tables": tables,
        "left out": dict(failed),
    }
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(run_command(main))
