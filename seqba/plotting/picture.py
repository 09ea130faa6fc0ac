"""Curves → an SVG or PNG that can be read on a light page and on a dark one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seqba.data.files import atomic_write
from seqba.data.outputs import check_file
from seqba.errors import UserError
from seqba.extras import needed

SUFFIXES = (".svg", ".png", ".pdf")

THEMES = {
    "both": {"background": "none", "text": "#7d838c", "grid": "#7d838c40"},
    "light": {"background": "#ffffff", "text": "#1f2328", "grid": "#1f232822"},
    "dark": {"background": "#0d1117", "text": "#d1d7e0", "grid": "#d1d7e030"},
}
"""Theme → colours; `both` leaves the page's own background, and its grey stands out from black and from white."""

ARM_COLOURS = {
    "baseline": "#2f86d1",
    "ba": "#e0712a",
    "fixed-samples": "#23a06d",
    "large-batch": "#9a6bd6",
    "fixed-rows": "#c857a5",
}
"""Arm → the colour that it has in every picture."""

COLOURS = (*ARM_COLOURS.values(), "#b58a00", "#d64550", "#1f9fb0")
"""For whatever is no arm: of middle lightness, so that they are seen on white and on black."""


@dataclass(frozen=True)
class Series:
    """One line of a picture.

    Attributes:
        label: its entry in the legend; "" for none.
        x, y: its points.
        colour: as #rrggbb.
        spread: half the height of the band around it, None for no band.
        dashed: drawn thin and dashed, as training is beside validation.
        values: written above the points, one each; none if empty.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]
    colour: str
    spread: Sequence[float] | None = None
    dashed: bool = False
    values: Sequence[str] = ()


@dataclass(frozen=True)
class Frame:
    """Axes, title and colours around the lines.

    Attributes:
        x_label, y_label: the axes' labels, with units.
        title: above the picture.
        x_base: the x axis is logarithmic to this base; 0 for a linear one.
        log_y: whether the y axis is logarithmic.
        y_min, y_max: the ends of the y axis, None to fit the lines.
        theme: one of `THEMES`.
    """

    x_label: str
    y_label: str
    title: str = ""
    x_base: int = 0
    log_y: bool = False
    y_min: float | None = None
    y_max: float | None = None
    theme: str = "both"


def check_output(path: str) -> None:
    """Refuses, before long work, what `draw` would refuse.

    Raises:
        UserError: for a name whose suffix is none of `SUFFIXES` or whose folder takes no file, or without matplotlib.
    """
    needed("matplotlib", "drawing")
    if Path(path).suffix.lower() not in SUFFIXES:
        raise UserError(f"{path} can't be drawn: end its name in {' or '.join(SUFFIXES)}")
    check_file(path, path)


def colours_of(labels: Sequence[str]) -> dict[str, str]:
    """A colour for each label: an arm's own; where two labels are of one arm, and for all others, the next free one."""
    found: dict[str, str] = {}
    for label in labels:
        own = ARM_COLOURS.get(label.partition(",")[0])
        free = [colour for colour in COLOURS if colour not in found.values()]
        found[label] = (
            own if own and own not in found.values() else (free or COLOURS)[len(found) % len(free or COLOURS)]
        )
    return found


def draw(path: str, series: Sequence[Series], frame: Frame) -> None:
    """Writes a picture, of the kind that the suffix of its name says.

    Raises:
        UserError: as `check_output` does.
    """
    check_output(path)
    matplotlib = needed("matplotlib", "drawing")
    figures = needed("matplotlib.figure", "drawing")
    theme = THEMES[frame.theme]
    with matplotlib.rc_context(_style(theme)):
        figure = figures.Figure(figsize=(7.2, 4.3), layout="constrained")
        axes = figure.add_subplot()
        for number, each in enumerate(series, start=1):
            _add(axes, each, f"line-{number}")
        _dress(axes, series, frame)
        kind = Path(path).suffix.lower().removeprefix(".")
        metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind)
        with atomic_write(path) as file:  # the same picture gives the same bytes
            figure.savefig(file, format=kind, metadata=metadata, dpi=160)


def _style(theme: Mapping[str, str]) -> dict[str, Any]:
    """Settings of matplotlib; text stays text in an SVG."""
    text = ("text.color", "axes.labelcolor", "xtick.color", "ytick.color", "axes.edgecolor", "legend.labelcolor")
    return {
        **dict.fromkeys(text, theme["text"]),
        **dict.fromkeys(("figure.facecolor", "axes.facecolor", "savefig.facecolor"), theme["background"]),
        **dict.fromkeys(("axes.spines.top", "axes.spines.right", "legend.frameon"), False),
        "axes.grid": True,
        "grid.color": theme["grid"],
        "font.family": "sans-serif",
        "svg.fonttype": "none",
        "svg.hashsalt": "seqba",
    }


def _add(axes: Any, series: Series, name: str) -> None:
    """Draws a line, which has this name in an SVG."""
    dashed = series.dashed
    marker = "o" if len(series.x) == 1 or series.values else None
    label = series.label or "_"
    axes.plot(
        series.x,
        series.y,
        color=series.colour,
        label=label,
        linestyle="--" if dashed else "-",
        linewidth=1.0 if dashed else 1.8,
        alpha=0.8 if dashed else 1.0,
        marker=marker,
        markersize=4,
        gid=name,
    )
    if series.spread is not None:
        low = [y - half for y, half in zip(series.y, series.spread, strict=True)]
        high = [y + half for y, half in zip(series.y, series.spread, strict=True)]
        axes.fill_between(series.x, low, high, color=series.colour, alpha=0.18, linewidth=0)
    for x, y, text in zip(series.x, series.y, series.values, strict=False):
        axes.annotate(text, (x, y), xytext=(0, 6), textcoords="offset points", ha="center", color=series.colour)


def _dress(axes: Any, series: Sequence[Series], frame: Frame) -> None:
    axes.set_xlabel(frame.x_label)
    axes.set_ylabel(frame.y_label)
    axes.set_title(frame.title, loc="left")
    if frame.x_base:
        axes.set_xscale("log", base=frame.x_base)
        axes.set_xticks(sorted({x for each in series for x in each.x}))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.minorticks_off()
    if frame.log_y:
        axes.set_yscale("log")
        formatter = needed("matplotlib.ticker", "drawing").LogFormatter(minor_thresholds=(2, 0.5))
        axes.yaxis.set_major_formatter(formatter)
        axes.yaxis.set_minor_formatter(formatter)
    axes.set_ylim(frame.y_min, frame.y_max)
    if any(each.label for each in series):
        axes.legend()
