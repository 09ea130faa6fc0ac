"""Measurement of a checkpoint: its gradients on single examples → a table, a file and a picture."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, cast

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from seqba import __version__
from seqba.cli.jobs.single_examples import SingleExamples, stateless_loss
from seqba.cli.jobs.trained_run import TrainedRun
from seqba.cli.options.measure import MeasureOptions
from seqba.cli.output import warn_on_stderr
from seqba.data.files import write_json
from seqba.errors import UserError
from seqba.extras import progress_bar
from seqba.models.forks import Forking
from seqba.options import is_given
from seqba.plotting.picture import COLOURS, THEMES, Frame, Series, draw
from seqba.runtime.devices import prepare_device
from seqba.statistics import (
    Correlations,
    Estimate,
    VarianceSplit,
    measure_correlations,
    measure_noise_above,
    measure_split,
)
from seqba.statistics.advice import worth_of_copies
from seqba.statistics.correlations import KINDS
from seqba.statistics.gradients import LossFunction, Statistics
from seqba.tasks import Task

WORTH = (1, 2, 4, 8, 16, 32)
"""Numbers of copies in the table and the picture."""

FEW_EXAMPLES = 10
"""Fewer than these are warned of: their standard errors are as uncertain as what they are the errors of."""


@dataclass(frozen=True)
class Measured:
    """Results of the command.

    Attributes:
        about: what was measured, as plain values.
        split: of the variance.
        correlations: by kind.
        noise_above: share of the noise above a fork; None where none was asked for.
    """

    about: Mapping[str, Any]
    split: VarianceSplit
    correlations: Mapping[str, Correlations]
    noise_above: Estimate | None = None

    def plain(self) -> dict[str, Any]:
        """Plain values, as JSON holds them."""
        return {
            **self.about,
            "split": self.split.plain(),
            "noise_above": None if self.noise_above is None else self.noise_above.plain(),
            "predicted_correlations": {
                "views": self.split.correlation_of_views,
                "views_of_other_examples": self.split.correlation_of_examples,
            },
            "correlations": {kind: each.plain() for kind, each in self.correlations.items()},
        }


def measure(data: str, options: MeasureOptions) -> None:
    """Measures a checkpoint on `data`, prints the result, and writes it and draws it where that is asked for.

    Raises:
        UserError: for files that can't be used, or a model that can't be measured.
    """
    device = prepare_device(cpu=options.cpu)
    trained = TrainedRun.load(str(options.path), data, device)
    measured = _measure(trained, device, options)
    print("\n".join(table(measured)))
    if options.json is not None:
        write_json(options.json, measured.plain())
    if options.plot is not None:
        _draw(measured.split, options.plot, options.theme)


def _measure(trained: TrainedRun, device: torch.device, options: MeasureOptions) -> Measured:
    batches = replace(
        trained.batches(),
        batch_size=1,
        max_tokens=None,
        required_batch_size_multiple=1,
        train_subset=options.gen_subset,
        weights=(),  # every example of the split counts alike
    )
    if options.fork is not None:
        trained.check_fork(options.fork)
    task = trained.open_task(batches, seed=options.seed, cutout=options.cutout)
    examples = SingleExamples(task, device, options.seed)
    if len(examples) < options.examples:
        warn_on_stderr(f"{options.gen_subset} has {len(examples)} examples, fewer than --examples {options.examples}")
    if min(len(examples), options.examples) < FEW_EXAMPLES:
        warn_on_stderr(
            f"standard errors are of the examples too, and fewer than {FEW_EXAMPLES} tell them badly: measure more"
        )
    model = trained.fresh_model(options.seed, device) if options.fresh else trained.model
    if is_given(options, "batch_norm") and not any(isinstance(module, _BatchNorm) for module in model.modules()):
        raise UserError(f"--batch-norm is for networks with batch norms; that of {options.path} has none")
    trained.hold_drop_path(model, 0 if options.fresh else trained.loaded.updates)
    started = time.perf_counter()
    try:
        statistics = _statistics(model, examples, stateless_loss(task), options)
    except ValueError as error:
        hint = "; try --batch-norm running" if "per channel" in str(error) else ""
        raise UserError(f"{options.path} can't be measured: {error}{hint}") from None
    about = _about(trained, model, task, options, elapsed_s=time.perf_counter() - started)
    return Measured(about, *statistics)


def _about(
    trained: TrainedRun, model: nn.Module, task: Task[Any], options: MeasureOptions, *, elapsed_s: float
) -> dict[str, Any]:
    """Description of a measurement, as plain values."""
    return {
        "version": __version__,
        "path": options.path,
        "data": trained.data,
        "subset": options.gen_subset,
        "task": trained.task_name,
        "arch": trained.loaded.cfg["model"]["arch"],
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "updates": 0 if options.fresh else trained.loaded.updates,
        "fresh": options.fresh,
        "fork": options.fork,
        "unit": task.unit,
        "seed": options.seed,
        "batch_norm": options.batch_norm,
        "cutout": options.cutout,
        "elapsed_s": elapsed_s,
    }


def _statistics(
    model: nn.Module, examples: SingleExamples, loss: LossFunction[Any], options: MeasureOptions
) -> tuple[VarianceSplit, dict[str, Correlations], Estimate | None]:
    """The measurements, with a bar on stderr if that is a terminal."""
    count, pairs = min(options.examples, len(examples)), max(0, min(options.pairs, len(examples) - 1))
    statistics: Statistics = "own" if options.batch_norm == "own" else "running"
    total = count + pairs + (0 if options.fork is None else count)
    with progress_bar()(total=total, desc="Measure", unit="example", leave=False, disable=options.quiet or None) as bar:
        how: Any = {"seed": options.seed, "batch_norm": statistics, "progress": bar.update}
        split = measure_split(model, islice(examples, count), loss, draws=options.draws, **how)
        correlations = measure_correlations(model, examples.related(pairs), loss, **how) if pairs else {}
        if options.fork is None:
            return split, correlations, None
        cast(Forking, model).fork_at(options.fork)
        return split, correlations, measure_noise_above(model, islice(examples, count), loss, **how)


def table(measured: Measured) -> list[str]:
    """Printed lines, in three blocks."""
    about, split = measured.about, measured.split
    state = "new weights" if about["fresh"] else f"update {about['updates']}"
    unit = "token" if about["unit"] == "tokens" else "image"
    lines = [
        f"{about['arch']}, {about['parameters']:,} parameters, {state}: {split.examples} examples of {about['subset']} "
        f"under {split.draws} draws of the noise each ({about['elapsed_s']:.1f} s)",
        "",
        f"Squared norms of the gradient of the mean loss (nats per {unit}), ± standard error",
        *(f"  {name:<8} {what:<44} {_told(value)}" for name, what, value in _parts(split)),
    ]
    if measured.noise_above is not None:
        what = f"share of S_w above --fork {about['fork']}"
        lines.append(f"  {'':<8} {what:<44} {_told(measured.noise_above)}")
    if measured.correlations:
        lines += [
            "",
            "Correlation of single examples' gradients: median, median absolute and standard deviation, pairs",
        ]
        lines += [_correlation_line(each) for each in measured.correlations.values()]
        lines.append(f"  by the split, ρ(T₁, T₂) = (|G|² + S_b)/(|G|² + S_b + S_w) = {split.correlation_of_views:.3f}")
    lines += ["", "M copies have the variance of a batch of so many times the examples, without copies"]
    lines += [f"  M = {copies:<3} {_told(worth_of_copies(split.ratio, copies), digits=2)}" for copies in WORTH[1:]]
    limit = 1 + max(split.ratio.value, 0.0)
    lines.append(f"  M → ∞   {limit:.2f}   (1 + S_w/S_b)" if math.isfinite(limit) else "  M → ∞   no limit was seen")
    return lines


def _parts(split: VarianceSplit) -> list[tuple[str, str, Estimate]]:
    return [
        ("|G|²", "the mean gradient", split.signal),
        ("S_b", "variance between examples", split.between),
        ("S_w", "variance of the noise within an example", split.noise),
        ("S_w/S_b", "about so many copies are worth their while", split.ratio),
    ]


def _told(estimate: Estimate, digits: int | None = None) -> str:
    form = ".4g" if digits is None else f".{digits}f"
    error = "" if math.isnan(estimate.error) else f" ± {estimate.error:{'.2g' if digits is None else form}}"
    return f"{estimate.value:{form}}{error}"


def _correlation_line(correlations: Correlations) -> str:
    told = f"{correlations.median:6.3f}  {correlations.deviation:.3f}  {correlations.spread:.3f}"
    return f"  {KINDS[correlations.kind]:<48} {told}  {len(correlations.known)}"


def _draw(split: VarianceSplit, path: str, theme: str) -> None:
    """The worth of M copies in examples, with a band of one standard error, and the most that any number is worth."""
    worths = [worth_of_copies(split.ratio, copies) for copies in WORTH]
    grey = THEMES[theme]["text"]
    spread = [0.0 if math.isnan(worth.error) else worth.error for worth in worths]
    series = [Series("measured", WORTH, [worth.value for worth in worths], COLOURS[0], spread)]
    series.append(Series("as many examples", WORTH, WORTH, grey, dashed=True))
    if math.isfinite(split.ratio.value):
        limit = 1 + max(split.ratio.value, 0.0)
        series.append(Series("infinitely many copies", WORTH, [limit] * len(WORTH), COLOURS[1], dashed=True))
        top = 1.5 * limit
    else:
        top = float(WORTH[-1])
    frame = Frame("copies (M)", "worth in examples (M = 1 is 1)", x_base=2, y_min=0.8, y_max=top, theme=theme)
    draw(path, series, frame)
