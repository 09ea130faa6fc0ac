"""Records of runs: what a run came to, in one JSON file that the page is made from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from run_facts import curve, origin, rounded, seconds_of_updates, write_compactly
from study import Run

from seqba.plotting.logs import RunLines, read_run

Scores = Mapping[str, float]
Record = dict[str, Any]

SPLIT, ADVICE = "split.json", "advice.json"
PLACES = ("path", "data", "measured")
OF_VALIDATION = ("nll", "ppl", "top1")
OF_TRAINING = ("nll", "top1", "grad_norm_sq", "seconds_per_update")


def write_record(
    run: Run,
    data: Path,
    folder: Path,
    results: Path,
    command: Sequence[str],
    *,
    trained: bool = False,
    scores: Scores | None = None,
) -> None:
    """Writes what is known of a run.

    Args:
        run: see `Run`.
        data: its prepared data.
        folder: its checkpoints and its log.
        results: where the record goes, as RUN.json.
        command: of the training.
        trained: whether the training came to its own end: all updates, or the study's patience.
        scores: of the evaluation; None for a run that isn't finished.
    """
    lines = read_run(str(folder))
    resolved = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    last = lines.of("train")[-1]
    unit = "tokens" if "processed_tokens" in last else "images"
    processed, unique = last[f"processed_{unit}"], last[f"unique_{unit}"]
    record = {
        "study": run.study.name,
        "arm": run.arm.name,
        "variant": run.arm.variant,
        "copies": run.arm.copies,
        "seed": run.seed,
        "trained": trained,
        "finished": scores is not None,
        "updates": last["update"],
        "of_updates": run.updates,
        "unit": unit,
        "unique": unique,
        "passes": last["epoch"],
        "processed": processed,
        "flop": _flop(run, data, processed),
        "seconds_of_updates": seconds_of_updates(lines),
        "scores": dict(scores or {}),
        "best": best_validation(lines, run.study.metric, rises=run.study.rises),
        "command": _portable(command, data, folder),
        **origin(resolved),
        "measured": _measured(folder),
        "curves": {
            "valid": curve(lines.of("valid"), OF_VALIDATION),
            "train": curve(lines.of("train"), OF_TRAINING),
        },
    }
    write_compactly(record, results / f"{run.name}.json")


def read_records(results: Path) -> list[Record]:
    """All records of a folder, by name."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(results.glob("*.json"))]


def is_finished(run: Run, results: Path) -> bool:
    """Whether there is a record of the run, to its end."""
    path = results / f"{run.name}.json"
    if not path.exists():
        return False
    record = json.loads(path.read_text(encoding="utf-8"))
    return bool(record["finished"]) and record["of_updates"] == run.updates


def best_validation(lines: RunLines, metric: str, *, rises: bool) -> dict[str, float] | None:
    """Update and value of the best validation."""
    found = [(line[metric], line["update"]) for line in lines.of("valid") if line.get(metric) is not None]
    if not found:
        return None
    value, update = max(found, key=lambda pair: pair[0]) if rises else min(found)
    return {"update": update, metric: rounded(value)}


def _flop(run: Run, data: Path, processed: int) -> float:
    dictionary = next(iter(sorted(data.glob("dict*.txt"))), None)
    symbols = 10 if dictionary is None else 4 + len(dictionary.read_text(encoding="utf-8").splitlines())
    whole, below = run.study.cost.whole(symbols), run.study.cost.below_fork(symbols)
    saved = below * (1 - 1 / run.arm.copies) if "--fork" in run.arm.options else 0.0
    return float(f"{processed * (whole - saved):.4g}")


def _measured(folder: Path) -> Record:
    """What seqba-measure and seqba-advise wrote, without this machine's folders; empty where they weren't asked."""
    paths = {"split": folder / SPLIT, "advice": folder / ADVICE}
    found = {name: json.loads(path.read_text(encoding="utf-8")) for name, path in paths.items() if path.exists()}
    return {name: {key: value for key, value in each.items() if key not in PLACES} for name, each in found.items()}


def _portable(command: Sequence[str], data: Path, folder: Path) -> str:
    """The command with short names in place of this machine's folders."""
    names = {str(data): data.name, str(folder): folder.name}
    return " ".join(names.get(word, word) for word in command)
