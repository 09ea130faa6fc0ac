"""How the benchmarks measure: each side in a process of its own, the sides in turns, ratios within a round, medians.

A machine's speed drifts, and others may be using it. So the sides of a comparison are alive together and are asked in
turns, A B A B ..., for one short measurement each; a ratio is taken within a round, between neighbours in time, and the
median over rounds is reported. A side that isn't asked sleeps. Its own process makes its peak memory its own too.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from time import perf_counter
from types import TracebackType
from typing import Any

import torch

from seqba.nn.kernels.products import product
from seqba.runtime.memory import keep_freed_memory, peak_memory_mb

Row = dict[str, str | int | float]


def parse_options(description: str | None, arguments: Sequence[str] | None, **defaults: Any) -> argparse.Namespace:
    """The options of every benchmark, and a flag for each of `defaults`: a number, a word, or a list of either."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of each side (%(default)s)")
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    parser.add_argument("--quick", action="store_true", help="see that it runs: tiny sizes, figures without meaning")
    parser.add_argument("--side", type=json.loads, help=argparse.SUPPRESS)
    for name, default in defaults.items():
        flag = "--" + name.replace("_", "-")
        if isinstance(default, list):
            parser.add_argument(flag, type=type(default[0]), nargs="+", default=default, help="(%(default)s)")
        else:
            parser.add_argument(flag, type=type(default), default=default, help="(%(default)s)")
    return parser.parse_args(arguments)


class Side:
    """A child process that answers one JSON line with another.

    It is the calling script again, with `--side SPEC`; there the script calls `serve`.

    Args:
        script: the script's `__file__`.
        spec: what the child builds. "threads" and "keep_memory" (whether freed memory is kept, as seqba-train does) are
            obeyed by `serve`.

    Raises:
        RuntimeError: from `ask`, if the child ended.
    """

    def __init__(self, script: str, spec: Mapping[str, Any]) -> None:
        command = [sys.executable, script, "--side", json.dumps(spec)]
        self.spec = spec
        # Ctrl-C goes to the benchmark alone, which ends its sides.
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )

    def ask(self, question: str, number: int = 0) -> Any:
        """The child's answer, once it has it."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with suppress(BrokenPipeError):  # said below, with the status
            self.process.stdin.write(json.dumps([question, number]) + "\n")
            self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the side {self.spec} ended with status {self.process.wait()}")
        return json.loads(line)

    def __enter__(self) -> Side:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        if kind is not None:
            self.process.kill()
        with suppress(BrokenPipeError):
            self.process.stdin.close()  # the end of its questions is the end of the child
        self.process.stdout.close()
        self.process.wait()


def serve(spec: Mapping[str, Any], build: Callable[[Mapping[str, Any]], Callable[[int], Any]]) -> None:
    """The child's part: builds the side, then answers "measure" with what it returns and "peak" with megabytes."""
    # Answers have standard output to themselves; whatever a library prints goes to standard error.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    torch.set_num_threads(spec["threads"])
    if spec.get("keep_memory"):
        keep_freed_memory()
    measure = build(spec)
    for line in sys.stdin:
        question, number = json.loads(line)
        answer = measure(number) if question == "measure" else peak_memory_mb(torch.device(spec.get("device", "cpu")))
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def take_turns(
    script: str, specs: Mapping[str, Mapping[str, Any]], rounds: int
) -> tuple[dict[str, list[Any]], dict[str, float]]:
    """Measures all sides `rounds` times, in turns, after one round that isn't counted.

    Returns:
        Per side its measurements, one for each round, and its peak memory in MB (10^6 bytes).
    """
    answers: dict[str, list[Any]] = {name: [] for name in specs}
    with ExitStack() as stack:
        sides = {name: stack.enter_context(Side(script, spec)) for name, spec in specs.items()}
        for number in range(rounds + 1):
            for name, side in sides.items():
                answers[name].append(side.ask("measure", number))
        peaks = {name: side.ask("peak") for name, side in sides.items()}
    return {name: measured[1:] for name, measured in answers.items()}, peaks


def median_ratio(above: Iterable[float], below: Iterable[float]) -> float:
    """Median over rounds of the ratio within a round."""
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


def seconds(work: Callable[[], object], clock: Callable[[], float] = perf_counter) -> float:
    """Seconds of one call: the wall clock's, or the processor's by `time.process_time`."""
    begin = clock()
    work()
    return clock() - begin


def gemm_rates(
    products: Iterable[tuple[int, int, int]],
    repeats: int = 5,
    dtype: torch.dtype = torch.float32,
    clock: Callable[[], float] = perf_counter,
) -> dict[str, float]:
    """Best rate of each product (m × k)·(n × k)ᵀ through torch.mm or oneDNN, in operations per second of the clock."""
    rates = {}
    for m, k, n in products:
        left, right, result = torch.randn(m, k).to(dtype), torch.randn(n, k).to(dtype), torch.empty(m, n, dtype=dtype)
        multiply = lambda: torch.mm(left, right.t(), out=result)  # noqa: B023, E731 - used up within the iteration
        through_onednn = lambda: product(left, right)  # noqa: B023, E731
        best = min(seconds(work, clock) for work in (multiply, through_onednn) for _ in range(repeats))
        rates[f"{m}x{k}x{n}"] = 2 * m * k * n / best
    return rates


def report(title: str, rows: Sequence[Row], options: argparse.Namespace, **notes: Any) -> None:
    """Prints the table, and writes it with the machine and the options to `--json`."""
    print(title)
    columns = list(rows[0])
    cells = [columns, *([_cell(row[column]) for column in columns] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    for line in cells:
        print("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))
    for name, note in notes.items():
        print(f"{name}: {note}")
    if options.json:
        settings = {name: value for name, value in vars(options).items() if name not in ("json", "side")}
        machine = {
            "processor": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "torch": torch.__version__,
        }
        content = {"title": title, "machine": machine, "settings": settings, "rows": rows, "notes": notes}
        options.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _cell(value: str | int | float) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}" if abs(value) < 1 else f"{value:.2f}"
    return str(value)
