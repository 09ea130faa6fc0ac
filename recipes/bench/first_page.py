"""Draws the first page's picture of the grid of an update.

    python recipes/bench/first_page.py        # writes docs/img/grid.svg

It has a background of its own and follows the reader's colour scheme, light or dark.
"""

from __future__ import annotations

from pathlib import Path
from xml.sax.saxutils import escape

DOCS = Path(__file__).resolve().parents[2] / "docs"
WIDTH = 760
LIGHT = {
    "ground": "#ffffff",
    "frame": "#d0d7de",
    "ink": "#1f2328",
    "soft": "#59636e",
    "line": "#e4e8ec",
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
    "rank0": "#1f4b87",
    "rank1": "#7d4510",
    "rank2": "#1c5c33",
    "rank3": "#553590",
}


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
            ".bold{font-weight:600}",
            rules(LIGHT),
            f"@media (prefers-color-scheme: dark){{ {rules(DARK)} }}",
            "</style>",
            f'<rect x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="8" class="ground s-frame"/>',
            *shapes,
            "</svg>\n",
        ]
    )


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
    """Writes the picture."""
    folder = DOCS / "img"
    folder.mkdir(exist_ok=True)
    (folder / "grid.svg").write_text(draw_grid(), encoding="utf-8")


if __name__ == "__main__":
    main()
