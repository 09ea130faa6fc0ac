"""Draws the first page's two pictures: the curves of the three arms, and the grid of an update.

    python recipes/bench/first_page.py        # writes docs/img/curves.svg and docs/img/grid.svg

The curves' figures are read from the table of docs/results.md, so that each stands in one place. Both pictures have a
background of their own and follow the reader's colour scheme, light or dark.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from xml.sax.saxutils import escape

DOCS = Path(__file__).resolve().parents[2] / "docs"
WIDTH = 760
UPDATES_PER_EPOCH = 686
LIGHT = {
    "ground": "#ffffff",
    "frame": "#d0d7de",
    "ink": "#1f2328",
    "soft": "#59636e",
    "line": "#e4e8ec",
    "baseline": "#59636e",
    "ba": "#0969da",
    "fixed-samples": "#bc4c00",
    "rank0": "#b6d6fb",
    "rank1": "#ffd8b5",
    "rank2": "#bfe8c8",
    "rank3": "#e2cffa",
}
DARK = {
    "ground": "#0d1117",
    "frame": "#3d444d",
    "ink": "#f0f6fc",
    "soft": "#9198a1",
    "line": "#262c36",
    "baseline": "#9198a1",
    "ba": "#58a6ff",
    "fixed-samples": "#f0883e",
    "rank0": "#1f4b87",
    "rank1": "#7d4510",
    "rank2": "#1c5c33",
    "rank3": "#553590",
}
LABELS = {"baseline": "baseline", "ba": "ba: 4 copies", "fixed-samples": "fixed-samples: 4 × the words"}


def text(x: float, y: float, words: str, *, fill: str = "soft", anchor: str = "start", more: str = "") -> str:
    """One line of text; `fill` names a colour, `more` further classes."""
    return f'<text x="{x:g}" y="{y:g}" class="{fill} {more}" text-anchor="{anchor}">{escape(words)}</text>'


def picture(height: int, title: str, shapes: list[str]) -> str:
    """A whole SVG file: colours of both schemes, a ground with a frame, a title for readers who can't see it."""

    def rules(colours: dict[str, str]) -> str:
        return " ".join(f".{name}{{fill:{colour}}} .s-{name}{{stroke:{colour}}}" for name, colour in colours.items())

    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
            f'role="img" aria-label="{escape(title)}">',
            f"<title>{escape(title)}</title>",
            "<style>",
            "text{font:13px system-ui,-apple-system,'Segoe UI',Helvetica,Arial,sans-serif}",
            ".bold{font-weight:600} .curve{fill:none;stroke-width:2.5;stroke-linejoin:round}",
            rules(LIGHT),
            f"@media (prefers-color-scheme: dark){{ {rules(DARK)} }}",
            "</style>",
            f'<rect x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="8" class="ground s-frame"/>',
            *shapes,
            "</svg>\n",
        ]
    )


def curves_in(results: str) -> dict[str, list[float]]:
    """Arm → validation perplexity after each epoch, from the table of Penn Treebank."""
    table = results.split("| arm | processed words |", 1)[1].split("\n\n", 1)[0]
    rows = re.findall(r"^\| (baseline|ba|fixed-samples) \| [^|]+\|(.+)\|$", table, flags=re.MULTILINE)
    return {arm: [float(cell) for cell in cells.split("|")[:10]] for arm, cells in rows}


def draw_curves(curves: dict[str, list[float]]) -> str:
    """Validation perplexity by update, on a logarithmic axis, each curve with its name and last value beside it."""
    left, right, top, bottom = 56, 452, 64, 300
    lowest, highest = math.log(95), math.log(360)
    epochs = max(map(len, curves.values()))

    def x(epoch: float) -> float:
        return left + (right - left) * (epoch - 1) / (epochs - 1)

    def y(perplexity: float) -> float:
        return bottom - (bottom - top) * (math.log(perplexity) - lowest) / (highest - lowest)

    shapes = [
        text(20, 28, "The same number of updates, three arms", fill="ink", more="bold"),
        text(20, 47, "Penn Treebank, AWD-LSTM of 3 × 300 units, one seed: validation perplexity, lower is better"),
    ]
    for tick in (100, 150, 200, 300):
        shapes.append(f'<line x1="{left}" x2="{right}" y1="{y(tick):.1f}" y2="{y(tick):.1f}" class="s-line"/>')
        shapes.append(text(left - 8, y(tick) + 4, str(tick), anchor="end"))
    for epoch in (1, 4, 7, 10):
        shapes.append(text(x(epoch), bottom + 20, f"{epoch * UPDATES_PER_EPOCH:,}", anchor="middle"))
    shapes.append(text((left + right) / 2, bottom + 40, "updates", anchor="middle"))
    for arm, values in curves.items():
        points = " ".join(f"{x(epoch):.1f},{y(value):.1f}" for epoch, value in enumerate(values, start=1))
        shapes.append(f'<polyline points="{points}" class="curve s-{arm}"/>')
        shapes.append(f'<circle cx="{right}" cy="{y(values[-1]):.1f}" r="4" class="{arm}"/>')
        shapes.append(text(right + 12, y(values[-1]) + 4, f"{values[-1]:.1f} {LABELS[arm]}", fill=arm, more="bold"))
    return picture(356, "Validation perplexity by update for the arms baseline, ba and fixed-samples", shapes)


def draw_grid() -> str:
    """The cells of one update, 2 micro-batches × 4 copies, dealt over four and over three ranks."""
    shapes = [
        text(20, 28, "An update is a grid: S micro-batches × M copies", fill="ink", more="bold"),
        text(
            20,
            47,
            "Each cell is a forward and a backward through its own noise. Any number of ranks may share the cells.",
        ),
    ]
    for at, ranks in ((20, 4), (398, 3)):
        shapes.append(text(at + 98, 78, f"on {ranks} ranks", fill="ink", more="bold"))
        for copy in range(4):
            shapes.append(text(at + 98 + 62 * copy + 28, 98, f"copy {copy}", anchor="middle"))
        for cell in range(8):
            micro_batch, copy = divmod(cell, 4)
            rank = next(rank for rank in range(ranks) if cell < (rank + 1) * 8 // ranks)  # as Ranks.cells deals them
            left, top = at + 98 + 62 * copy, 106 + 42 * micro_batch
            shapes.append(f'<rect x="{left}" y="{top}" width="56" height="36" rx="5" class="rank{rank}"/>')
            shapes.append(text(left + 28, top + 22, f"rank {rank}", fill="ink", anchor="middle"))
        for micro_batch in range(2):
            shapes.append(text(at, 128 + 42 * micro_batch, f"micro-batch {micro_batch}"))
    shapes.append(
        text(20, 222, "gradient = Σ over all cells of ∇(summed loss) ÷ Σ of weights", fill="ink", more="bold")
    )
    shapes.append(
        text(20, 242, "Divided once. The masks are keyed by update, micro-batch and copy, never by the rank,")
    )
    shapes.append(text(20, 260, "so that both layouts, and one process alone, give the same gradient to rounding."))
    return picture(280, "The cells of an update of 2 micro-batches and 4 copies, on four and on three ranks", shapes)


def main() -> None:
    """Writes both pictures."""
    folder = DOCS / "img"
    folder.mkdir(exist_ok=True)
    curves = curves_in((DOCS / "results.md").read_text(encoding="utf-8"))
    (folder / "curves.svg").write_text(draw_curves(curves), encoding="utf-8")
    (folder / "grid.svg").write_text(draw_grid(), encoding="utf-8")


if __name__ == "__main__":
    main()
