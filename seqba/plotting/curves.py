"""Logs → curves: runs put together by arm, their seeds as a mean and its spread."""

from __future__ import annotations

import statistics
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from seqba.errors import UserError
from seqba.plotting.logs import Line, RunLines

COUNTED = ("unique", "processed")
"""Quantities whose name in a log ends in what the task counts: tokens or images."""

NAMES = {
    "update": "updates",
    "epoch": "epoch",
    "elapsed_s": "time of the updates (s)",
    "ppl": "perplexity",
    "top1": "top-1 accuracy (%)",
    "top5": "top-5 accuracy (%)",
    "bleu": "BLEU",
    "lr": "learning rate",
    "grad_norm": "norm of the gradient",
    "grad_norm_sq": "squared norm of the gradient",
    "signal": "|G|², squared norm of the mean gradient",
    "variance_between": "variance between examples, of a micro-batch",
    "variance_noise": "variance of the noise, of a copy of a micro-batch",
    "variance_total": "variance of a copy of a micro-batch",
    "copies": "copies (M)",
    "memory_mb": "memory (MB)",
}
"""Quantity → its label, with its unit."""


@dataclass(frozen=True)
class Curve:
    """One line of a picture.

    Attributes:
        label: the arm, or the run.
        event: `train` or `valid`.
        seeds: how many runs it is the mean of.
        x, y: its points.
        spread: standard deviation of y over the seeds (n − 1 in the denominator); zeros for a single one.
    """

    label: str
    event: str
    seeds: int
    x: tuple[float, ...]
    y: tuple[float, ...]
    spread: tuple[float, ...]


def group_runs(runs: Sequence[RunLines], by: str) -> dict[str, list[RunLines]]:
    """Label → its runs, in the order given.

    Args:
        runs: the logs.
        by: `arm` puts the seeds of one arm and one number of copies together; `run` leaves each run by itself.

    Raises:
        UserError: if two runs can't be told apart, or would be taken for seeds without being that.
    """
    groups: dict[str, list[RunLines]] = {}
    for run in runs:
        label = run.name if by == "run" or run.arm is None else _arm_label(run)
        for other in groups.setdefault(label, []):
            if by == "run" or run.arm is None:
                raise UserError(f"two runs are called {label}: rename the folder or file of one")
            if other.seed == run.seed:
                raise UserError(f"{other.name} and {run.name} are both {label} with seed {run.seed}: add --by run")
            _check_same_settings(f"both {label} but no seeds of one arm", other, run)
        groups[label].append(run)
    return groups


def differences(groups: Mapping[str, Sequence[RunLines]]) -> list[str]:
    """Options beside arm and copies in which arms differ, each with its values: `--lr (baseline: [0.1], ba: [0.2])`."""
    arms = {label: runs[0].settings for label, runs in groups.items() if runs[0].settings}
    known = set.intersection(*map(set, arms.values())) if arms else set()  # older versions had fewer
    found = []
    for flag in sorted(known):
        values = {label: settings[flag] for label, settings in arms.items()}
        if any(value != next(iter(values.values())) for value in values.values()):
            found.append(f"{flag} ({', '.join(f'{label}: {value}' for label, value in values.items())})")
    return found


def uneven_ends(runs: Sequence[RunLines]) -> tuple[int, int] | None:
    """The last update of the shortest and of the longest run, where these differ: a mean ends with the shortest."""
    ends = {max((line["update"] for line in run.lines if "update" in line), default=0) for run in runs}
    return (min(ends), max(ends)) if len(ends) > 1 else None


def make_curve(
    label: str, runs: Sequence[RunLines], event: str, *, x: str, y: str, subset: str | None = None, smooth: int = 1
) -> Curve | None:
    """The mean over runs, at the updates that all of them have; None if there are none.

    Args:
        label: of the curve.
        runs: those of one label.
        event: `train` or `valid`.
        x: `update`, `epoch`, `processed`, `unique`, `elapsed_s`, or any number of the lines.
        y: any number of the lines.
        subset: the split of validation; None for the first.
        smooth: every point of a training curve is the mean of so many lines, itself and those before it.
    """
    points = [_points(run, event, x, y, subset, smooth if event == "train" else 1) for run in runs]
    updates = sorted(set.intersection(*(set(each) for each in points)))
    if not updates:
        return None
    values = [[each[update][1] for each in points] for update in updates]
    return Curve(
        label=label,
        event=event,
        seeds=len(runs),
        x=tuple(statistics.fmean(each[update][0] for each in points) for update in updates),
        y=tuple(map(statistics.fmean, values)),
        spread=tuple(statistics.stdev(each) if len(each) > 1 else 0.0 for each in values),
    )


def curve_over_copies(runs: Sequence[RunLines], event: str, y: str, *, subset: str | None = None) -> Curve | None:
    """The mean of y over a run's lines, against its number of copies M; None if no run has y.

    Runs of the same M (seeds) come to one point, their mean, with its spread. A run without `run.json` counts as M = 1.

    Args:
        runs: of the arms baseline and ba, which differ in M alone.
        event: `train` or `valid`.
        y: any number of the lines.
        subset: the split of validation; None for the first.

    Raises:
        UserError: for a run of another arm, whose updates have other examples, of a schedule of M, or with other
            options.
    """
    for run in runs:
        if run.arm not in (None, "baseline", "ba"):
            raise UserError(f"{run.name} is of the arm {run.arm}, which differs in more than M: leave it out")
        if run.schedule is not None:
            raise UserError(f"{run.name} has --copies {run.schedule}, which is no single M: leave it out")
        _check_same_settings("different in more than M", runs[0], run, but="--fork")
    found: dict[int, list[float]] = {}
    for run in runs:
        values = [value for line in run.of(event, subset) if (value := _number(line, y)) is not None]
        if values:
            found.setdefault(run.copies, []).append(statistics.fmean(values))
    if not found:
        return None
    each = [found[copies] for copies in sorted(found)]
    return Curve(
        label=label_of(y, runs),
        event=event,
        seeds=max(map(len, each)),
        x=tuple(map(float, sorted(found))),
        y=tuple(map(statistics.fmean, each)),
        spread=tuple(statistics.stdev(values) if len(values) > 1 else 0.0 for values in each),
    )


def label_of(quantity: str, runs: Sequence[RunLines]) -> str:
    """The label of an axis, with the unit."""
    is_text = any(run.unit == "tokens" or "processed_tokens" in line for run in runs for line in run.lines)
    unit = "token" if is_text else "image"
    if quantity in COUNTED:
        return f"{quantity} {unit}s"
    if quantity in ("nll", "loss"):
        return f"{'negative log-likelihood' if quantity == 'nll' else 'loss'} (nats per {unit})"
    return NAMES.get(quantity, quantity.replace("_", " "))


def quantities(runs: Sequence[RunLines]) -> list[str]:
    """Names of all numbers in the logs."""
    names = {name for run in runs for line in run.lines for name in line if _number(line, name) is not None}
    return sorted(names)


def _check_same_settings(problem: str, one: RunLines, other: RunLines, *, but: str | None = None) -> None:
    """Refuses runs that differ in another option (than `but`), whose mean would be that of nothing."""
    both = one.settings.keys() & other.settings.keys()  # older versions had fewer
    for flag in sorted(flag for flag in both - {but} if one.settings[flag] != other.settings[flag]):
        raise UserError(
            f"{one.name} and {other.name} are {problem}: {flag} is {one.settings[flag]} in the one and "
            f"{other.settings[flag]} in the other; add --by run, or leave one out"
        )


def _arm_label(run: RunLines) -> str:
    return f"{run.arm}" if run.copies == 1 else f"{run.arm}, M = {run.schedule or run.copies}"


def _points(
    run: RunLines, event: str, x: str, y: str, subset: str | None, smooth: int
) -> dict[int, tuple[float, float]]:
    """Update → (x, y) of the lines that have both."""
    scale = _scale(run, x)
    found: dict[int, tuple[float, float]] = {}
    window: list[float] = []
    for line in run.of(event, subset):
        value = _number(line, y)
        place = _number(line, x) if x in ("update", "epoch") else _interpolated(scale, line["update"])
        if value is None or place is None:
            continue
        window = [*window, value][-smooth:]
        found[line["update"]] = (place, statistics.fmean(window))
    return found


def _scale(run: RunLines, x: str) -> list[tuple[int, float]]:
    """(update, x) of the training lines: validations are at updates, and most quantities are told of training alone."""
    scale, elapsed, before = [], 0.0, 0
    for line in run.of("train"):
        update = line["update"]
        elapsed += (_number(line, "seconds_per_update") or 0.0) * (update - before)
        before = update
        name = next((f"{x}_{unit}" for unit in ("tokens", "images") if f"{x}_{unit}" in line), x)
        value = elapsed if x == "elapsed_s" else _number(line, name)
        if value is not None:
            scale.append((update, value))
    return scale


def _interpolated(scale: Sequence[tuple[int, float]], update: int) -> float | None:
    """Value of x at an update, between the lines around it; None outside of them."""
    place = bisect_left(scale, (update, float("-inf")))
    if place == len(scale):
        return None
    right, high = scale[place]
    left, low = scale[place - 1] if place else (0, 0.0)
    return high if right == update else low + (high - low) * (update - left) / (right - left)


def _number(line: Line, name: str) -> float | None:
    value = line.get(name)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
