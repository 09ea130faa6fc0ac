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
from study import Arm, Study
from summary import LAST, Side, Spread, is_trained, sides_of

from seqba.cli.command import run as run_command
from seqba.cli.plot import main as plot

ROOT = Path(__file__).resolve().parents[2]
PAGE, RESULTS, PICTURES = ROOT / "docs" / "results.md", ROOT / "recipes" / "results", ROOT / "docs" / "img"
BEGIN, END = "<!-- tables: begin (recipes/evidence/page.py, {name}) -->", "<!-- tables: end -->"

SCORES = {
    "language": (("test_ppl", "test perplexity", 1), ("valid_ppl", "valid perplexity", 1)),
    "translation": (("bleu", "test BLEU", 2), ("chrf", "test chrF", 2)),
    "images": ((LAST, "test top-1, %", 2), ("tta_top1", "over 10 views, %", 2)),
}
"""What a run is judged by → its title and digits; the first one is compared with the baseline's."""

METRICS = {"nll": ("validation, nats per token", 3), "top1": ("test top-1 on the way, %", 2)}
DRAWN = ("baseline", "ba", "fixed-samples", "fixed-rows")
WORDS = {
    "half": "half the updates",
    "quarter": "a quarter of the updates",
    "fourfold": "four times the updates",
    "fork": "copies begin behind the encoder",
    "rdrop": "with R-Drop",
    "sampled": "subwords cut anew in each copy",
    "consistency": "with a consistency loss",
}


def page(text: str, records: Sequence[Record]) -> str:
    """The page with the tables of these records."""
    written = {"all studies": side_by_side(records)}
    for study in STUDIES:
        written[study.name] = section(study, records)
    for name, words in written.items():
        begin = BEGIN.format(name=name)
        before, found, rest = text.partition(begin)
        if found:
            text = f"{before}{begin}\n\n{words}\n{END}{rest.partition(END)[2]}"
    return text


def side_by_side(records: Sequence[Record]) -> str:
    """The best arm of each study at equal updates and at equal cost, and the best that has copies."""
    rows = []
    for study in STUDIES:
        sides = sides_of(study, records)
        if not sides or sides[0].arm.name != "baseline":
            continue
        whole = [(each, each.best()) for each in sides if each.arm.share == 1]
        cost = sides[0].mean(lambda r: r["flop"])
        within = [(each, each.best(flop=cost)) for each in sides]
        title, digits = METRICS[study.metric]
        rows.append([study.title, title])
        for found in (whole, within):
            for pairs in (found, [(side, best) for side, best in found if side.arm.copies_of_an_update > 1]):
                rows[-1].append(best_of(study, pairs, digits))
    same, cheap = "same updates: best", "same FLOP: best"
    return table(["study", "by", same, "best with copies", cheap, "best with copies"], rows)


def best_of(study: Study, pairs: Sequence[tuple[Side, Spread | None]], digits: int) -> str:
    """The best arm and its value."""
    known = [(side, best) for side, best in pairs if best is not None]
    if not known:
        return "–"
    side, best = (max if study.rises else min)(known, key=lambda pair: pair[1].mean)
    return f"{title_of(side.arm, len(side.records))}: {best.text(digits)}"


def section(study: Study, records: Sequence[Record]) -> str:
    """Tables of a study, and the command that made them."""
    sides = sides_of(study, records)
    if not sides or sides[0].arm.name != "baseline":
        return "No finished runs of the baseline yet.\n"
    blocks = [main_table(sides), equal_table(sides)]
    if len(sides[0].curve()) > 1:
        blocks.append(f"![{study.title}: {METRICS[study.metric][0]} by update](img/{study.name}.svg)\n")
    blocks += [advice_table(sides), provenance(sides, records)]
    return "\n".join(block for block in blocks if block)


def main_table(sides: Sequence[Side]) -> str:
    """A row for each arm: what it saw, what it cost, what it came to."""
    base, study = sides[0], sides[0].study
    scores = SCORES[study.kind]
    heads = ["arm", "updates", "passes", f"processed {base.records[0]['unit']}", "FLOP", "× FLOP", "× time"]
    heads += [title for _, title, _ in scores] + ["against baseline"]
    rows = []
    for side in sides:
        flop, each = side.mean(lambda r: r["flop"]), base.mean(lambda r: r["flop"])
        seconds = side.mean(lambda r: r["seconds_of_updates"]) / base.mean(lambda r: r["seconds_of_updates"])
        name, _, digits = scores[0]
        rows.append(
            [
                title_of(side.arm, len(side.records)),
                f"{side.mean(lambda r: r['updates']):,.0f}",
                f"{side.mean(lambda r: r['passes']):.0f}",
                f"{side.mean(lambda r: r['processed']) / 1e6:.2f} M",
                scientific(flop),
                f"{flop / each:.2f}",
                f"{seconds:.2f}",
                *(spread_text(side.score(key), places) for key, _, places in scores),
                "" if side is base else difference(side.score(name), base.score(name), digits),
            ]
        )
    return table(heads, rows)


def spread_text(spread: Spread | None, digits: int) -> str:
    """Mean ± standard deviation; a dash for what wasn't evaluated."""
    return "–" if spread is None else spread.text(digits)


def difference(one: Spread | None, other: Spread | None, digits: int) -> str:
    """Difference of two means ± its standard error."""
    return "–" if one is None or other is None else one.against(other, digits)


def equal_table(sides: Sequence[Side]) -> str:
    """The best validation at the baseline's updates and at the baseline's cost, side by side."""
    base, study = sides[0], sides[0].study
    title, digits = METRICS[study.metric]
    cost = base.mean(lambda r: r["flop"])
    rows = []
    for side in sides:
        rows.append(
            [
                title_of(side.arm, len(side.records)),
                spread_text(side.best(), digits),
                spread_text(side.best(flop=cost), digits),
                *updates_to_baseline(side, base),
            ]
        )
    heads = ["arm", f"best {title}", "the same within the baseline's FLOP", "updates to the baseline's best", "share"]
    return table(heads, rows)


def updates_to_baseline(side: Side, base: Side) -> tuple[str, str]:
    """Updates until an arm's mean curve is where the baseline's is best, and their share of the baseline's own."""
    best = (max if side.study.rises else min)(value for _, value in base.curve())
    updates, own = side.updates_to(best), base.updates_to(best)
    return ("never", "–") if updates is None or own is None else (f"{updates:,}", f"{updates / own:.2f}")


def advice_table(sides: Sequence[Side]) -> str:
    """What seqba-measure and seqba-advise said at the end of a baseline, beside what came out."""
    base = sides[0]
    measured = next((record["measured"] for record in base.records if "advice" in record["measured"]), None)
    if measured is None:
        return ""
    split = measured["split"]["split"]
    ratio = split["ratio"]
    words = (
        f"`seqba-measure` on the last checkpoint of the baseline (seed 1, {split['examples']} examples × "
        f"{split['draws']} draws): S_w/S_b = "
        f"{ratio['value']:.2f} ± {ratio['standard_error']:.2f}. What `seqba-advise` makes of it, and what came out:\n"
    )
    rows = []
    for row in measured["advice"]["copies"][1:]:
        count, (low, high) = row["copies"], row["updates_range"]
        side = next((each for each in sides if each.arm == Arm("ba", count)), None)
        seen = "not run" if side is None else updates_to_baseline(side, base)[1]
        updates = f"{row['updates']:.2f} ({low:.2f}–{high:.2f})"
        rows.append([str(count), f"{row['worth_in_examples']:.2f}", updates, seen])
    return words + "\n" + table(["M", "worth in examples", "updates to the same loss, said", "seen"], rows)


def provenance(sides: Sequence[Side], records: Sequence[Record]) -> str:
    """Machines, dates, versions, the command, and what is unfinished."""
    study, every = sides[0].study, [record for side in sides for record in side.records]
    machines = sorted({record["machine"].get("gpu", record["machine"]["processor"]) for record in every})
    versions = sorted({f"torch {record['versions']['torch']}" for record in every})
    dates = sorted({record["date"] for record in every})
    seconds = sum(record["seconds_of_updates"] for record in every)
    own = [record for record in records if record["study"] == study.name]
    stopped = [name_of(record) for record in own if not is_trained(record)]
    left = f" Stopped before their end, and not in the tables: {', '.join(stopped)}." if stopped else ""
    return (
        f"{len(every)} runs, {', '.join(machines)}, {', '.join(versions)}, {' and '.join(dates)}; "
        f"{seconds / 60:.0f} minutes of updates in all, several runs side by side.{left}\n\n"
        f"    bash recipes/evidence.sh --only {study.name}\n"
    )


def scientific(number: float) -> str:
    """1.2·10¹³."""
    digits, exponent = f"{number:.1e}".split("e")
    return f"{digits}·10{str(int(exponent)).translate(str.maketrans('0123456789-', '⁰¹²³⁴⁵⁶⁷⁸⁹⁻'))}"


def name_of(record: Record) -> str:
    """An unfinished run, and how far it came."""
    arm = Arm(record["arm"], record["copies"], record["variant"])
    return f"{arm.label} seed {record['seed']} ({record['updates']:,} of {record['of_updates']:,} updates)"


def title_of(arm: Arm, seeds: int) -> str:
    """The arm in words."""
    copies = "" if arm.name == "baseline" else f", M = {arm.copies}"
    words = f", {WORDS[arm.variant]}" if arm.variant else ""
    return f"{arm.name}{copies}{words}" + ("" if seeds == 3 else f" ({seeds} seed{'s' * (seeds > 1)})")


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def draw(study: Study, records: Sequence[Record], picture: Path, *, theme: str = "both") -> bool:
    """Draws the validation curves of the main arms with seqba-plot, seeds as bands; returns whether there are any."""
    sides = [side for side in sides_of(study, records) if is_drawn(side)]
    if not sides:
        return False
    with tempfile.TemporaryDirectory() as folder:
        logs = []
        for side in sides:
            for record in side.records:
                logs.append(str(write_log(record, study, Path(folder))))
        options = ["--y", study.metric, "--curves", "valid", "--output", str(picture), "--theme", theme]
        status = run_command(plot, [*logs, *options, *cut(sides[0])])
    if status:
        sys.exit(status)
    return True


def cut(base: Side) -> list[str]:
    """Options that leave out what lies before a third of the baseline's updates, where all curves are steep."""
    curve = base.curve()
    value = curve[len(curve) // 3][1]
    return ["--y-min" if base.study.rises else "--y-max", f"{value:.3g}"]


def is_drawn(side: Side) -> bool:
    """Whether an arm's curve is in the picture: the four arms, with the first number of copies."""
    first = next(arm.copies for arm in side.study.arms if arm.name == "ba")
    return not side.arm.variant and side.arm.name in DRAWN and side.arm.copies in (1, first)


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
        draw(study, records, PICTURES / f"{study.name}.svg")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
