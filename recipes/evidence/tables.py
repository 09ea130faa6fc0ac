"""Tables of docs/results.md, in Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from record import Record
from studies import STUDIES
from study import Arm, Study
from summary import LAST, LAST_NLL, Side, Spread, is_trained, sides_of

SCORES = {
    "language": (("test_ppl", "test perplexity", 1), ("valid_ppl", "valid perplexity", 1)),
    "translation": (("bleu", "test BLEU", 2), ("chrf", "test chrF", 2)),
    "images": ((LAST, "test top-1, %", 2), ("tta_top1", "over 10 views, %", 2), (LAST_NLL, "test, nats", 2)),
}
"""What a run is judged by → its title and digits; the first one is compared with the baseline's."""

METRICS = {"nll": ("validation, nats per token", 3), "top1": ("test top-1 on the way, %", 2)}
WORDS = {
    "half": "half the updates",
    "quarter": "a quarter of the updates",
    "fourfold": "four times the updates",
    "fork": "copies begin behind the encoder",
    "rdrop": "with R-Drop",
    "sampled": "subwords cut anew in each copy",
    "consistency": "with a consistency loss",
}


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


def copies_or_examples(records: Sequence[Record]) -> str:
    """`ba` against `fixed-samples` with the first number of copies, which see as many rows in as many updates."""
    rows = []
    for study in STUDIES:
        found = {(side.arm.name, side.arm.variant): side for side in sides_of(study, records) if is_first(side)}
        copies, examples = (found.get((name, "")) for name in ("ba", "fixed-samples"))
        if copies is None or examples is None:
            continue
        name, title, digits = SCORES[study.kind][0]
        passes = [f"{side.mean(lambda r: r['passes']):.0f}" for side in (copies, examples)]
        score = difference(copies.score(name), examples.score(name), digits)
        rows.append(
            [study.title, *passes, title, score, difference(copies.score(LAST_NLL), examples.score(LAST_NLL), 3)]
        )
    heads = ["study", "passes of ba", "of fixed-samples", "by", "ba − fixed-samples", "in nats, at the end"]
    return table(heads, rows)


def best_of(study: Study, pairs: Sequence[tuple[Side, Spread | None]], digits: int) -> str:
    """The best arm and its value."""
    known = [(side, best) for side, best in pairs if best is not None]
    if not known:
        return "–"
    side, best = (max if study.rises else min)(known, key=lambda pair: pair[1].mean)
    return f"{title_of(side.arm, len(side.records))}: {best.text(digits)}"


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
        time = f"{seconds:.2f}" if side.machines == base.machines and len(base.machines) == 1 else "–"
        name, _, digits = scores[0]
        rows.append(
            [
                title_of(side.arm, len(side.records)),
                f"{side.mean(lambda r: r['updates']):,.0f}",
                f"{side.mean(lambda r: r['passes']):.0f}",
                f"{side.mean(lambda r: r['processed']) / 1e6:.2f} M",
                scientific(flop),
                f"{flop / each:.2f}",
                time,
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
    cost, ends_are_apart = base.mean(lambda r: r["flop"]), study.kind != "images"  # their end is in the first table
    rows = []
    for side in sides:
        rows.append(
            [
                title_of(side.arm, len(side.records)),
                spread_text(side.best(), digits),
                *([spread_text(side.score(LAST), digits)] if ends_are_apart else []),
                spread_text(side.best(flop=cost), digits),
                *updates_to_baseline(side, base),
            ]
        )
    heads = ["arm", f"best {title}", *(["at the end"] if ends_are_apart else []), "best within the baseline's FLOP"]
    return table([*heads, "updates to the baseline's best", "share"], rows)


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
    machines = sorted({machine for side in sides for machine in side.machines})
    versions = sorted({f"torch {record['versions']['torch']}" for record in every})
    dates = sorted({record["date"] for record in every})
    seconds = sum(record["seconds_of_updates"] for record in every)
    own = [record for record in records if record["study"] == study.name]
    stopped = [name_of(record) for record in own if not is_trained(record)]
    left = f" Stopped before their end, and not in the tables: {', '.join(stopped)}." if stopped else ""
    return (
        f"{len(every)} runs, {' and '.join(machines)}, {', '.join(versions)}, {' and '.join(dates)}; "
        f"{seconds / 60:.0f} minutes of updates in all, beside other work.{ends(study, every)}{left}\n\n"
        f"    bash recipes/evidence.sh --only {study.name}\n"
    )


def ends(study: Study, trained: Sequence[Record]) -> str:
    """How runs of a study with patience ended; nothing of the others, which make all updates."""
    if not study.patience:
        return ""
    early = sorted(record["updates"] for record in trained if record["updates"] < record["of_updates"])
    ended = f" `--patience {study.patience}` ended {len(early) or 'none'} of them"
    return ended + (f", after {early[0]:,} to {early[-1]:,} updates." if early else ".")


def rows_of_the_paper(records: Sequence[Record]) -> str:
    """What `recipes/paper.sh` has made, shortened or whole, beside the paper's figures."""
    rows = []
    for record in records:
        if "paper" not in record:
            continue
        arm = record["arm"] if record["copies"] == 1 else f"{record['arm']}, M = {record['copies']}"
        scores = ", ".join(f"{name} {value:.2f}" for name, value in record["scores"].items())
        told = record["paper"].get(record["arm"])
        paper = "–" if told is None else f"{told:.2f} {record['paper_unit']}"
        sizes = [f"{record['updates']:,}", f"{record['processed'] / 1e6:.2f} M {record['unit']}"]
        rows.append([record["study"], arm, str(record["seed"]), *sizes, scores, paper, f"`{record['command']}`"])
    return table(["row", "arm", "seed", "updates", "processed", "came to", "the paper", "command"], rows)


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


def is_first(side: Side) -> bool:
    """Whether an arm has the study's first number of copies, or none."""
    return side.arm.copies in (1, next(arm.copies for arm in side.study.arms if arm.name == "ba"))
