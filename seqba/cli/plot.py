"""`seqba-plot`: logs of training runs → a picture of their curves."""

from __future__ import annotations

from collections.abc import Sequence

from seqba.cli.arguments import Parser, read_options
from seqba.cli.command import run_process
from seqba.cli.output import warn_on_stderr
from seqba.errors import UserError
from seqba.options import option, options
from seqba.plotting.curves import (
    COUNTED,
    Curve,
    curve_over_copies,
    differences,
    group_runs,
    label_of,
    make_curve,
    quantities,
    uneven_ends,
)
from seqba.plotting.logs import RunLines, read_run
from seqba.plotting.picture import THEMES, Frame, Series, check_output, colours_of, draw

DESCRIPTION = (
    "Draws curves of training runs: training dashed, validation solid; arms by colour, and the seeds of one arm as "
    "their mean and, around it, a band of one standard deviation. Needs matplotlib: pip install 'seqba[plot]'."
)

COPIES = "copies"
"""M as the x axis: a point for each number of copies."""

EVENTS = {"both": ("valid", "train"), "train": ("train",), "valid": ("valid",)}


@options
class PlotOptions:
    """Options of seqba-plot: the curves, and the file."""

    x: str = option(
        "update",
        "update, epoch, processed or unique (tokens or images), elapsed_s (of the updates), any number of the lines, "
        "or copies: the mean of each run's lines against its M, in one curve",
        metavar="NAME",
    )
    y: str = option("nll", "nll, ppl, loss, top1, top5, bleu, or any number of the lines", metavar="NAME")
    output: str = option(
        "curves.svg",
        "the picture; the end of its name says the kind: .svg, .png or .pdf",
        aliases=("-o",),
        metavar="FILE",
    )
    title: str = option("", "stands above the picture")
    curves: str = option("both", "which are drawn", choices=tuple(EVENTS))
    subset: str | None = option(
        None, "the split of the validation curve (default: the first of each log)", metavar="NAME"
    )
    by: str = option("arm", "what has a colour: an arm (its runs are seeds), or every run", choices=("arm", "run"))
    smooth: int = option(1, "points of the training curve are means of so many lines", minimum=1)
    log_y: bool = option(False, "a logarithmic y axis")
    y_min: float | None = option(None, "lower end of the y axis")
    y_max: float | None = option(None, "upper end of the y axis")
    theme: str = option(
        "both", "light or dark, or both: no background, and colours that can be read on either", choices=tuple(THEMES)
    )


def build_parser() -> Parser:
    """The command line of seqba-plot."""
    parser = Parser("seqba-plot", DESCRIPTION)
    parser.add_argument(
        "runs",
        metavar="RUN",
        nargs="+",
        help="the save-dir of a run, a file of its JSON lines (log.jsonl, a --log-file, a kept --log-format json), or "
        "the record that a recipe made of it (.json)",
    )
    parser.add_options(PlotOptions, "the picture")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Draws the curves of some runs."""
    given = build_parser().parse(arguments)
    options = read_options(given, PlotOptions)
    check_output(options.output)
    runs = [read_run(path) for path in given.runs]
    over_copies = options.x == COPIES
    curves = _make_curves(runs, options)
    frame = Frame(
        x_base=2 if over_copies else 0,
        x_label=label_of(options.x, runs),
        y_label=label_of(options.y, runs),
        title=options.title,
        log_y=options.log_y,
        y_min=options.y_min,
        y_max=options.y_max,
        theme=options.theme,
    )
    draw(options.output, _make_series(curves, options.theme, show_values=over_copies), frame)
    print(f"{options.output}: {len(curves)} curve{'s' * (len(curves) > 1)} of {len(runs)} run{'s' * (len(runs) > 1)}")
    return 0


def _make_curves(runs: Sequence[RunLines], options: PlotOptions) -> list[Curve]:
    known = [*quantities(runs), *COUNTED, "elapsed_s", COPIES]
    for flag, name in (("--x", options.x), ("--y", options.y)):
        if name not in known or (flag == "--y" and name in (*COUNTED, "elapsed_s", COPIES)):
            raise UserError(f"{flag} {name} is in none of the logs; they have {', '.join(quantities(runs))}")
    if options.x == COPIES:
        return _curves_over_copies(runs, options)
    curves, groups = [], group_runs(runs, options.by)
    if options.by == "arm":
        for difference in differences(groups):
            warn_on_stderr(f"the arms differ in {difference} too, not only in what their names say")
    for label, members in groups.items():
        if ends := uneven_ends(members):
            warn_on_stderr(
                f"{label}: its runs end after {ends[0]} to {ends[1]} updates, and its curve with the shortest"
            )
        made = [
            make_curve(label, members, event, x=options.x, y=options.y, subset=options.subset, smooth=options.smooth)
            for event in EVENTS[options.curves]
        ]
        found = [curve for curve in made if curve is not None]
        if not found:
            raise UserError(
                f"{members[0].name} has no {options.y} to draw over {options.x} (--curves {options.curves}"
                f"{f', --subset {options.subset}' if options.subset else ''})"
            )
        curves += found
    return curves


def _curves_over_copies(runs: Sequence[RunLines], options: PlotOptions) -> list[Curve]:
    """One curve for each event that has the quantity."""
    made = [curve_over_copies(runs, event, options.y, subset=options.subset) for event in EVENTS[options.curves]]
    found = [curve for curve in made if curve is not None]
    if not found:
        raise UserError(f"no run has {options.y} to draw over its copies (--curves {options.curves})")
    return found


def _make_series(curves: Sequence[Curve], theme: str, *, show_values: bool) -> list[Series]:
    """Lines and their legend: an entry for each label, and one each for training and validation."""
    colours = colours_of(list(dict.fromkeys(curve.label for curve in curves)))
    series, told = [], set()
    for curve in curves:
        seeds = f", {curve.seeds} seeds" if curve.seeds > 1 else ""
        label = "" if curve.label in told else curve.label + seeds
        told.add(curve.label)
        spread = curve.spread if curve.seeds > 1 else None
        dashed = curve.event == "train"
        values = [f"{value:.3g}" for value in curve.y] if show_values else ()
        series.append(Series(label, curve.x, curve.y, colours[curve.label], spread, dashed, values))
    events = {curve.event for curve in curves}
    words = {"valid": "validation", "train": "training"}
    for event in ("valid", "train"):
        if event in events:
            series.append(Series(words[event], [], [], THEMES[theme]["text"], dashed=event == "train"))
    return series


def entry() -> None:
    """The `seqba-plot` command."""
    run_process(main)
