"""`seqba-measure`: a checkpoint and data → where the variance of its gradient comes from, and what copies are worth."""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import torch
from torch import nn

from seqba import __version__
from seqba.cli.arguments import Parser, read_options
from seqba.cli.command import run
from seqba.cli.output import warn_on_stderr
from seqba.cli.single_examples import SingleExamples, stateless_loss
from seqba.cli.trained_run import TrainedRun
from seqba.data.files import check_folder, write_json
from seqba.errors import UserError
from seqba.extras import progress_bar
from seqba.options import is_given, option, options
from seqba.plotting.picture import COLOURS, THEMES, Frame, Series, check_output, draw
from seqba.runtime.devices import choose_device
from seqba.runtime.memory import keep_freed_memory
from seqba.statistics import Correlations, Estimate, VarianceSplit, measure_correlations, measure_split
from seqba.statistics.advice import worth_of_copies
from seqba.statistics.correlations import KINDS
from seqba.statistics.gradients import LossFunction, Statistics

DESCRIPTION = (
    "Measures what Batch Augmentation has to gain: the variance of a model's gradient, split into what lies between "
    "examples (S_b, which more examples reduce) and the noise within one (S_w, which copies reduce as well), and how "
    "alike gradients of single examples are (the paper's Table 1). A batch of B examples and M copies has E‖ĝ‖² = |G|² "
    "+ S_b/B + S_w/(M·B). seqba-advise makes a recommendation of the --json that this writes. Statistics move during "
    "training: measure several checkpoints, and with --fresh the model before its first update. Example: seqba-measure "
    "data-bin --path checkpoints/checkpoint_last.pt --json split.json, and then seqba-advise split.json."
)
WORTH = (1, 2, 4, 8, 16, 32)
"""Numbers of copies in the table and the picture."""


@options
class MeasureOptions:
    """Measurement, and where its results go."""

    path: str | None = option(None, "the checkpoint", metavar="FILE")
    gen_subset: str = option("train", "the split that examples are drawn from", metavar="SPLIT")
    examples: int = option(
        100, "N, examples (sentence pairs, blocks, windows, pictures) of the split of the variance", minimum=2
    )
    draws: int = option(4, "m, draws of the noise for each: N·m passes over single examples", minimum=2)
    pairs: int = option(100, "pairs for each correlation, 4 or 5 passes each; 0 = no correlations", minimum=0)
    fresh: bool = option(False, "take new weights (of --seed) instead of the trained ones: update 0")
    batch_norm: str = option(
        "own",
        "images: batch norms take the statistics of the one image (own, the paper's numbers at the start), or running",
        choices=("own", "running"),
    )
    cutout: int | None = option(
        None, "images: measure with squares of this side blanked, 0 = none (default: as in training)", minimum=0
    )
    seed: int = option(1, "of the choice of examples, the noise and --fresh", minimum=0, maximum=2**63 - 1)
    json: str | None = option(None, "write all that was measured to this file", metavar="FILE")
    plot: str | None = option(
        None, "draw what M copies are worth (.svg, .png or .pdf; needs seqba[plot])", metavar="FILE"
    )
    theme: str = option("both", "of --plot: light, dark, or both", choices=tuple(THEMES))
    quiet: bool = option(False, "no progress bar")
    cpu: bool = option(False, "run on the CPU even where there is a GPU")

    def __post_init__(self) -> None:
        """Checks what no single option can."""
        if self.path is None:
            raise UserError("--path is missing: which checkpoint shall be measured? (checkpoints/checkpoint_best.pt)")
        if is_given(self, "theme") and self.plot is None:
            raise UserError("--theme belongs to --plot, which isn't given")


@dataclass(frozen=True)
class Measured:
    """Results of the command.

    Attributes:
        about: what was measured, as plain values.
        split: of the variance.
        correlations: by kind.
    """

    about: Mapping[str, Any]
    split: VarianceSplit
    correlations: Mapping[str, Correlations]

    def plain(self) -> dict[str, Any]:
        """Plain values, as JSON holds them."""
        return {
            **self.about,
            "split": self.split.plain(),
            "predicted_correlations": {
                "views": self.split.correlation_of_views,
                "views_of_other_examples": self.split.correlation_of_examples,
            },
            "correlations": {kind: each.plain() for kind, each in self.correlations.items()},
        }


def build_parser() -> Parser:
    """The command line of seqba-measure."""
    parser = Parser("seqba-measure", DESCRIPTION)
    parser.add_argument("data", help="data-bin or folder of pictures that the checkpoint was trained on")
    parser.add_options(MeasureOptions, "what is measured")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures a checkpoint and prints what came out."""
    logging.basicConfig(level=logging.WARNING, format="warning: %(message)s", stream=sys.stderr)
    namespace = build_parser().parse(arguments)
    options = read_options(namespace, MeasureOptions)
    if options.json is not None:
        check_folder(options.json, f"--json {options.json}")
    if options.plot is not None:
        check_output(options.plot)
    device = choose_device(cpu=options.cpu)
    if device.type == "cpu":
        keep_freed_memory()
    trained = TrainedRun.load(str(options.path), namespace.data, device)
    measured = _measure(trained, device, options)
    print("\n".join(table(measured)))
    if options.json is not None:
        write_json(options.json, measured.plain())
    if options.plot is not None:
        _draw(measured.split, options.plot, options.theme)
    return 0


def _measure(trained: TrainedRun, device: torch.device, options: MeasureOptions) -> Measured:
    batches = replace(
        trained.batches(),
        batch_size=1,
        max_tokens=None,
        required_batch_size_multiple=1,
        train_subset=options.gen_subset,
        weights=(),  # every example of the split counts alike
    )
    task = trained.open_task(batches, seed=options.seed, cutout=options.cutout)
    examples = SingleExamples(task, device, options.seed)
    if len(examples) < options.examples:
        warn_on_stderr(f"{options.gen_subset} has {len(examples)} examples, fewer than --examples {options.examples}")
    model = trained.fresh_model(options.seed, device) if options.fresh else trained.model
    started = time.perf_counter()
    try:
        split, correlations = _statistics(model, examples, stateless_loss(task), options)
    except ValueError as error:
        hint = "; try --batch-norm running" if "per channel" in str(error) else ""
        raise UserError(f"{options.path} can't be measured: {error}{hint}") from None
    about = {
        "version": __version__,
        "path": options.path,
        "data": trained.data,
        "subset": options.gen_subset,
        "task": trained.task_name,
        "arch": trained.loaded.cfg["model"]["arch"],
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "updates": 0 if options.fresh else trained.loaded.updates,
        "fresh": options.fresh,
        "unit": task.unit,
        "seed": options.seed,
        "batch_norm": options.batch_norm,
        "cutout": options.cutout,
        "elapsed_s": time.perf_counter() - started,
    }
    return Measured(about, split, correlations)


def _statistics(
    model: nn.Module, examples: SingleExamples, loss: LossFunction[Any], options: MeasureOptions
) -> tuple[VarianceSplit, dict[str, Correlations]]:
    """Both measurements, with a bar on stderr if that is a terminal."""
    count, pairs = min(options.examples, len(examples)), max(0, min(options.pairs, len(examples) - 1))
    statistics: Statistics = "own" if options.batch_norm == "own" else "running"
    with progress_bar()(
        total=count + pairs, desc="Measure", unit="example", leave=False, disable=options.quiet or None
    ) as bar:
        split = measure_split(
            model,
            islice(examples, count),
            loss,
            draws=options.draws,
            seed=options.seed,
            batch_norm=statistics,
            progress=bar.update,
        )
        if not pairs:
            return split, {}
        related = examples.related(pairs)
        return split, measure_correlations(
            model, related, loss, seed=options.seed, batch_norm=statistics, progress=bar.update
        )


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


def entry() -> None:
    """The console script."""
    sys.exit(run(main))
