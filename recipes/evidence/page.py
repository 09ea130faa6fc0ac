"""Writes the tables and pictures of docs/results.md from the records: `bash recipes/evidence.sh --page yes`.

What stands between two marks of a study is written here; the words around them are for a person to write. A test says
when it is due.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from record import Record, read_records
from studies import STUDIES
from study import Study
from summary import Side, sides_of
from tables import (
    METRICS,
    advice_table,
    copies_or_examples,
    equal_table,
    is_first,
    main_table,
    provenance,
    rows_of_the_paper,
    side_by_side,
)

from seqba.cli.command import run as run_command
from seqba.cli.plot import main as plot

ROOT = Path(__file__).resolve().parents[2]
PAGE, RESULTS, PICTURES = ROOT / "docs" / "results.md", ROOT / "recipes" / "results", ROOT / "docs" / "img"
BEGIN, END = "<!-- tables: begin (recipes/evidence/page.py, {name}) -->", "<!-- tables: end -->"
DRAWN = ("baseline", "ba", "fixed-samples", "fixed-rows")


def page(text: str, records: Sequence[Record]) -> str:
    """The page with the tables of these records."""
    written = {"all studies": side_by_side(records), "copies or examples": copies_or_examples(records)}
    written["rows of the paper"] = rows_of_the_paper(records)
    for study in STUDIES:
        written[study.name] = section(study, records)
    for name, words in written.items():
        begin = BEGIN.format(name=name)
        before, found, rest = text.partition(begin)
        if found:
            text = f"{before}{begin}\n\n{words}\n{END}{rest.partition(END)[2]}"
    return text


def section(study: Study, records: Sequence[Record]) -> str:
    """Tables of a study, and the command that made them."""
    sides = sides_of(study, records)
    if not sides or sides[0].arm.name != "baseline":
        return "No finished runs of the baseline yet.\n"
    blocks = [main_table(sides), equal_table(sides)]
    if len(sides[0].curve()) > 1:
        shown = f"{study.title}: {METRICS[study.metric][0]} by update"
        blocks += [f"![{shown}](img/{picture})\n" for picture in pictures(study, sides)]
    blocks += [advice_table(sides), provenance(sides, records)]
    return "\n".join(block for block in blocks if block)


def is_of_main_arms(side: Side) -> bool:
    """Whether an arm is one of the four, with the first number of copies."""
    return not side.arm.variant and side.arm.name in DRAWN and is_first(side)


def is_of_copies(side: Side) -> bool:
    """Whether an arm is the baseline or `ba`, with any number of copies."""
    return not side.arm.variant and side.arm.name in ("baseline", "ba")


def pictures(study: Study, sides: Sequence[Side]) -> dict[str, list[Side]]:
    """Pictures of a study with these arms: file name → the arms whose curves are in it.

    The first has the main arms; a second one the baseline and `ba` with each number of copies, if there are three.
    """
    main_arms = [side for side in sides if is_of_main_arms(side)]
    by_copies = [side for side in sides if is_of_copies(side)]
    found = {f"{study.name}.svg": main_arms} if main_arms else {}
    return {**found, f"{study.name}-copies.svg": by_copies} if len(by_copies) > 3 else found


def draw(study: Study, sides: Sequence[Side], picture: Path, *, theme: str = "both") -> None:
    """Draws the validation curves of some arms with seqba-plot, seeds as bands."""
    with tempfile.TemporaryDirectory() as folder:
        logs = []
        for side in sides:
            for record in side.records:
                logs.append(str(write_log(record, study, Path(folder))))
        options = ["--y", study.metric, "--curves", "valid", "--output", str(picture), "--theme", theme]
        status = run_command(plot, [*logs, *options, *cut(sides[0])])
    if status:
        sys.exit(status)


def cut(base: Side) -> list[str]:
    """Options that leave out what lies before a third of the baseline's updates, where all curves are steep."""
    curve = base.curve()
    value = curve[len(curve) // 3][1]
    return ["--y-min" if base.study.rises else "--y-max", f"{value:.3g}"]


def write_log(record: Record, study: Study, folder: Path) -> Path:
    """A record's validation as a run's folder, as seqba-plot reads it."""
    run = folder / f"{record['study']}-{record['arm']}-{record['copies']}-{record['seed']}"
    run.mkdir()
    curve, metric = record["curves"]["valid"], study.metric
    unit = record["unit"]
    lines = [{"event": "train", "update": record["updates"], f"processed_{unit}": record["processed"]}]
    lines[:0] = [
        {"event": "valid", "subset": "valid", "update": update, metric: value}
        for update, value in zip(curve["update"], curve[metric], strict=True)
    ]
    (run / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    known = {"arm": record["arm"], "copies": record["copies"], "seed": record["seed"]}
    (run / "run.json").write_text(json.dumps(known), encoding="utf-8")
    return run


def main(arguments: Sequence[str] | None = None) -> int:
    """Rewrites the page and draws its pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=RESULTS, help="records of runs")
    given = parser.parse_args(arguments)
    records = read_records(given.results)
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8"), records), encoding="utf-8")
    for study in STUDIES:
        for picture, drawn in pictures(study, sides_of(study, records)).items():
            draw(study, drawn, PICTURES / picture)
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
