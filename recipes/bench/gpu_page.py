"""The tables of recipes/bench/gpu.py in a page of the documentation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- gpu.py: begin -->", "<!-- gpu.py: end -->"


def tables_of(figures: Mapping[str, Any]) -> str:
    """The tables as Markdown, under a line that says what was measured where and when."""
    parts = [
        f"{figures['device']}, torch {figures['torch']}, {figures['date']}: `{figures['command']}`. Left out: "
        f"{', '.join(figures['left out']) or 'nothing'}."
    ]
    for table in figures["tables"]:
        columns = list(table["rows"][0])
        lines = [_line(columns), "|" + "---|" * len(columns)]
        lines += [_line([_cell(row[column]) for column in columns]) for row in table["rows"]]
        parts.append(f"**{table['title']}**\n\n" + "\n".join(lines))
    return "\n\n".join(parts)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(value: object) -> str:
    return f"{value:,}" if isinstance(value, int | float) else str(value).replace("|", "/")


def write_page(page: Path, figures: Mapping[str, Any]) -> None:
    """Puts the tables between the page's two marks.

    Raises:
        ValueError: for a page without them.
    """
    before, begin, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page} has no {BEGIN} … {END}")
    page.write_text(f"{before}{begin}\n\n{tables_of(figures)}\n\n{end}{after}", encoding="utf-8")
