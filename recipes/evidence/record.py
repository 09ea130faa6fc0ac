"""Records of runs: what a run came to, in one JSON file that the page is made from."""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from studies import Run

from seqba.data.files import atomic_text
from seqba.plotting.logs import Line, RunLines, read_run

Scores = Mapping[str, float]
Record = dict[str, Any]

SPLIT, ADVICE = "split.json", "advice.json"
PLACES = ("path", "data", "measured")
CURVE_POINTS = 200
OF_VALIDATION = ("nll", "ppl", "top1")
OF_TRAINING = ("nll", "top1", "grad_norm_sq", "seconds_per_update")
ROOT = Path(__file__).resolve().parents[2]


def write_record(
    run: Run, data: Path, folder: Path, results: Path, command: Sequence[str], scores: Scores | None
) -> None:
    """Writes what is known of a run.

    Args:
        run: see `Run`.
        data: its prepared data.
        folder: its checkpoints and its log.
        results: where the record goes, as RUN.json.
        command: of the training.
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
        "finished": scores is not None,
        "updates": last["update"],
        "of_updates": run.updates,
        "unit": unit,
        "unique": unique,
        "passes": last["epoch"],
        "processed": processed,
        "flop": _flop(run, data, processed),
        "parameters": resolved["parameters"],
        "seconds_of_updates": _round(_seconds(lines)),
        "scores": dict(scores or {}),
        "best": best_validation(lines, run.study.metric, rises=run.study.rises),
        "command": _portable(command, data, folder),
        "machine": machine(resolved["device"]),
        "versions": {"seqba": _version(), "torch": resolved["torch_version"], "python": platform.python_version()},
        "commit": commit(),
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "measured": _measured(folder),
        "curves": {
            "valid": _curve(lines.of("valid"), OF_VALIDATION),
            "train": _curve(lines.of("train"), OF_TRAINING),
        },
    }
    results.mkdir(parents=True, exist_ok=True)
    with atomic_text(results / f"{run.name}.json") as file:
        json.dump(record, file, indent=None, separators=(",", ":"))
        file.write("\n")


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
    return {"update": update, metric: _round(value)}


def machine(device: str) -> dict[str, str]:
    """Processor, threads and GPU."""
    found = {"processor": _processor(), "threads": str(torch.get_num_threads())}
    if device.startswith("cuda"):
        found["gpu"] = torch.cuda.get_device_name()
    return found


def commit() -> str:
    """Of the working tree; $SEQBA_COMMIT where there is none."""
    known = os.environ.get("SEQBA_COMMIT")
    if known:
        return known
    asked = subprocess.run(
        ["git", "-C", ROOT, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=False
    )
    return asked.stdout.strip() or "unknown"


def _flop(run: Run, data: Path, processed: int) -> float:
    dictionary = next(iter(sorted(data.glob("dict*.txt"))), None)
    symbols = 10 if dictionary is None else 4 + len(dictionary.read_text(encoding="utf-8").splitlines())
    whole, below = run.study.cost.whole(symbols), run.study.cost.below_fork(symbols)
    saved = below * (1 - 1 / run.arm.copies) if "--fork" in run.arm.options else 0.0
    return float(f"{processed * (whole - saved):.4g}")


def _seconds(lines: RunLines) -> float:
    """Of all updates, without validations and checkpoints."""
    total, before = 0.0, 0
    for line in lines.of("train"):
        total += (line["seconds_per_update"] or 0.0) * (line["update"] - before)
        before = line["update"]
    return total


def _curve(lines: Sequence[Line], names: Sequence[str]) -> dict[str, list[float | None]]:
    """At most `CURVE_POINTS` lines, evenly spread, the last one among them."""
    step = max(1, -(-len(lines) // CURVE_POINTS))
    kept = list(lines)[::-1][::step][::-1]
    present = [name for name in names if any(line.get(name) is not None for line in kept)]
    return {name: [_round(line.get(name)) for line in kept] for name in ("update", *present)}


def _measured(folder: Path) -> Record:
    """What seqba-measure and seqba-advise wrote, without this machine's folders; empty where they weren't asked."""
    paths = {"split": folder / SPLIT, "advice": folder / ADVICE}
    found = {name: json.loads(path.read_text(encoding="utf-8")) for name, path in paths.items() if path.exists()}
    return {name: {key: value for key, value in each.items() if key not in PLACES} for name, each in found.items()}


def _round(value: float | None) -> float | None:
    return value if value is None or isinstance(value, int) else float(f"{value:.5g}")


def _portable(command: Sequence[str], data: Path, folder: Path) -> str:
    """The command with short names in place of this machine's folders."""
    names = {str(data): data.name, str(folder): folder.name}
    return " ".join(names.get(word, word) for word in command)


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]}, {len(names)} cores" if names else platform.processor() or platform.machine()


def _version() -> str:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    return text.split('\nversion = "', 1)[1].split('"', 1)[0]
