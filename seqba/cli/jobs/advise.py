"""Advice on copies: a measured split and timed updates → a table and sentences."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import Any

from seqba.cli.jobs.trained_run import TrainedRun
from seqba.cli.jobs.update_timing import UpdateTiming
from seqba.cli.options.advise import AdviseOptions
from seqba.data.files import read_lines, write_json
from seqba.errors import UserError
from seqba.runtime.devices import prepare_device
from seqba.statistics import Advice, Estimate, PassCosts, VarianceSplit, advise
from seqba.tasks.options import BatchOptions
from seqba.training.options import GridOptions


def print_advice(path: str, options: AdviseOptions) -> None:
    """Times updates and prints the advice that follows from the measurement in the file `path`.

    Raises:
        UserError: for a file that seqba-measure didn't write, or a checkpoint or data that can't be used.
    """
    measured, split = _read(path)
    if options.times is not None:
        costs, read_s, examples = [_given_costs(options.times)], None, options.batch_examples
    else:
        if options.fork is not None and options.noise_above is None:
            options = dataclasses.replace(options, noise_above=_measured_share(path, measured, options.fork))
        costs, read_s, examples = _timed(measured, split, options)
    try:
        advice = advise(
            split, batch_examples=examples or math.nan, copies=(1, *options.copies), costs=costs, read_s=read_s
        )
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None
    print("\n".join(table(advice)))
    if options.json is not None:
        write_json(options.json, {"measured": path, **advice.plain()})


def table(advice: Advice) -> list[str]:
    """Printed lines: one for each M, and the sentences."""
    fewer = advice.noise_scale
    width = max(20, *(len(costs.plan) + 2 for costs in advice.costs))
    lines = [
        f"An update of {advice.batch_examples:.4g} examples; S_w/S_b = {advice.split.ratio.value:.3g}; noise scale "
        f"(S_b + S_w)/|G|² = " + (f"{fewer:.3g} examples" if math.isfinite(fewer) else "more than could be measured"),
        "",
        f"{'':>8}{'worth in':<18}{'updates to':<20}" + "".join(f"{costs.plan:<{width}}" for costs in advice.costs),
        f"{'M':>6}  {'examples':<18}{'the same loss':<20}"
        + f"{'s/update':<10}{'time':<{width - 10}}" * len(advice.costs),
    ]
    for row in advice.rows:
        low, high = row.updates_range
        error = "" if math.isnan(row.examples.error) else f" ± {row.examples.error:.2f}"
        bounds = f" ({low:.2f}–{high:.2f})" if high - low >= 0.005 else ""
        times = "".join(
            f"{costs.at(row.copies):<10.3g}{row.time[costs.plan]:<{width - 10}.2f}" for costs in advice.costs
        )
        worth, updates = f"{row.examples.value:.2f}{error}", f"{row.updates:.2f}{bounds}"
        lines.append(f"{row.copies:>6}  {worth:<18}{updates:<20}{times}".rstrip())
    lines += ["", "Updates and times are shares of those of M = 1.", ""]
    if any(costs.noise_above < 1 for costs in advice.costs):
        share = min(costs.noise_above for costs in advice.costs)
        lines.insert(-1, f"Copies that begin at the fork average {share:.0%} of the noise, which their times count in.")
    return [*lines, *advice.sentences()]


def _read(path: str) -> tuple[Mapping[str, Any], VarianceSplit]:
    """A measurement's JSON, and the split in it.

    Raises:
        UserError: for a file that seqba-measure didn't write.
    """
    wrong = f"{path} is not what seqba-measure --json writes: measure again"
    try:
        measured = json.loads("\n".join(read_lines(path, "measurement", "write one with seqba-measure --json")))
        split = VarianceSplit.from_plain(measured["split"])
    except (ValueError, KeyError, TypeError):
        raise UserError(wrong) from None
    if not isinstance(measured, dict):
        raise UserError(wrong)
    return measured, split


def _measured_share(path: str, measured: Mapping[str, Any], place: str) -> float:
    """Share of the noise above a fork, as it was measured, from 0 to 1.

    Raises:
        UserError: for a measurement without it.
    """
    if measured.get("fork") != place:
        raise UserError(
            f"{path} doesn't say which share of the noise is above --fork {place}: measure with seqba-measure --fork "
            f"{place}, or give --noise-above"
        )
    try:
        return min(1.0, max(0.0, Estimate.from_plain(measured["noise_above"]).value))
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{path} is not what seqba-measure --json writes: measure again") from None


def _given_costs(text: str) -> PassCosts:
    """`1:0.5,4:1.8` → the costs."""
    try:
        pairs = [each.split(":") for each in text.split(",")]
        return PassCosts("given", {int(copies): float(seconds) for copies, seconds in pairs})
    except ValueError as error:
        reason = str(error) if "times" in str(error) or "time of" in str(error) else "write it like 1:0.52,4:1.9"
        raise UserError(f"--times {text}: {reason}") from None


def _timed(
    measured: Mapping[str, Any], split: VarianceSplit, options: AdviseOptions
) -> tuple[list[PassCosts], float, float]:
    """Times updates: costs of each plan, seconds of reading, and examples of an update."""
    device = prepare_device(cpu=options.cpu)
    path, data = options.path or measured.get("path"), options.data or measured.get("data")
    if not isinstance(path, str) or not isinstance(data, str):
        raise UserError("the measurement names no checkpoint and data: give --path and --data, or --times")
    trained = TrainedRun.load(path, data, device)
    task = trained.open_task(_batches(trained.batches(), options), seed=options.seed)
    size = options.update_freq or trained.options(GridOptions, "training", "grid").update_freq[0]
    timing = UpdateTiming(trained, task, size, device, options)
    if options.batch_examples is not None:
        examples = options.batch_examples
    else:
        examples = timing.weight / len(timing.updates) / split.mean_weight
    return timing.costs(), timing.read_s, examples


def _batches(trained: BatchOptions, options: AdviseOptions) -> BatchOptions:
    if options.max_tokens is None and options.batch_size is None:
        return trained
    return dataclasses.replace(trained, max_tokens=options.max_tokens, batch_size=options.batch_size)
