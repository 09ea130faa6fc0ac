"""Records of runs: what one came to, in a JSON file that seqba-plot reads and that docs/results.md can be made from."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from entry import Entry
from run_facts import curve, origin, seconds_of_updates, write_compactly

from seqba.plotting.logs import RunLines, read_run

OF_VALIDATION = ("nll", "ppl", "top1")
OF_TRAINING = (
    *("nll", "top1", "grad_norm", "grad_norm_sq", "seconds_per_update"),
    *(f"{kind}_{unit}" for kind in ("unique", "processed") for unit in ("images", "tokens")),
)
SCORES = {
    "last.log": (("top1", r"^Top-1: *([\d.]+)%"),),
    "best.log": (("best_top1", r"^Top-1: *([\d.]+)%"),),
    "tta.log": (("tta_top1", r"^Top-1: *([\d.]+)%"),),
    "valid.log": (("valid_ppl", r"Perplexity: *([\d.]+)"),),
    "test.log": (("test_ppl", r"Perplexity: *([\d.]+)"),),
    "newstest2014/bleu.txt": (
        ("tokenised_bleu", r"^BLEU4 = ([\d.]+)"),
        ("compound_split_bleu", r"^BLEU4.* = ([\d.]+)"),
        ("bleu", r"^BLEU\|.* = ([\d.]+)"),
    ),
}
"""File of a run's folder → scores that an evaluation printed there."""


@dataclass(frozen=True)
class Finished:
    """A run that a recipe has made.

    Attributes:
        lines: its log.
        folder: of its checkpoints and evaluations.
    """

    lines: RunLines
    folder: Path

    @property
    def scores(self) -> dict[str, float]:
        """Scores of the evaluations, by name."""
        found = {}
        for file, patterns in SCORES.items():
            path = self.folder / file
            text = path.read_text(encoding="utf-8") if path.exists() else ""
            for name, pattern in patterns:
                numbers = re.findall(pattern, text, flags=re.MULTILINE)
                if numbers:
                    found[name] = float(numbers[-1])
        return found


def finished_runs(out: Path) -> list[Finished]:
    """The runs that a recipe has left in a folder: a log each, and a folder of its name."""
    return [Finished(read_run(str(log)), log.with_suffix("")) for log in sorted(out.glob("*.jsonl"))]


def write_record(entry: Entry, run: Finished, results: Path, command: Sequence[str], scale: str) -> Path:
    """Writes what is known of a run.

    Args:
        entry: what it is a run of.
        run: see `Finished`.
        results: folder of records.
        command: the whole command line.
        scale: share of the paper's cost; "" for all of it.

    Returns:
        The file.
    """
    lines, last = run.lines, run.lines.of("train")[-1]
    resolved = json.loads((run.folder / "run.json").read_text(encoding="utf-8"))
    unit = "tokens" if "processed_tokens" in last else "images"
    measured = {
        path.stem: json.loads(path.read_text(encoding="utf-8")) for path in run.folder.glob("correlations/*.json")
    }
    record: dict[str, Any] = {
        "study": entry.name,
        "arm": lines.arm,
        "variant": scale and f"scale-{scale}",
        "copies": lines.copies,
        "seed": lines.seed,
        "finished": True,
        "updates": last["update"],
        "unit": unit,
        "unique": last[f"unique_{unit}"],
        "processed": last[f"processed_{unit}"],
        "seconds_of_updates": seconds_of_updates(lines),
        "scores": run.scores,
        "paper": entry.paper,
        "paper_unit": entry.unit,
        **({"correlations": measured} if measured else {}),
        "command": " ".join(command),
        **origin(resolved),
        "curves": {
            event: curve(lines.of(event), names)
            for event, names in (("train", OF_TRAINING), ("valid", OF_VALIDATION))
            if lines.of(event)
        },
    }
    label = "-".join(filter(None, (run.folder.name, record["variant"])))
    path = results / f"{entry.name}.{label}.{lines.seed}.json"
    write_compactly(record, path)
    return path
