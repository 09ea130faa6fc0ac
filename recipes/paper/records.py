"""Records of runs: what one came to, in a JSON file that seqba-plot reads and that docs/results.md can be made from."""

from __future__ import annotations

import datetime
import json
import platform
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from entries import Entry

from seqba.data.files import atomic_text
from seqba.plotting.logs import Line, RunLines, read_run

CURVE_POINTS = 200
OF_VALIDATION = ("update", "nll", "ppl", "top1")
OF_TRAINING = (
    *("update", "nll", "top1", "grad_norm", "grad_norm_sq", "seconds_per_update"),
    *(f"{kind}_{unit}" for kind in ("unique", "processed") for unit in ("images", "tokens")),
)
ROOT = Path(__file__).resolve().parents[2]

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
        "parameters": resolved["parameters"],
        "seconds_of_updates": _round(_seconds(lines)),
        "scores": run.scores,
        "paper": entry.paper,
        "paper_unit": entry.unit,
        **({"correlations": measured} if measured else {}),
        "command": " ".join(command),
        "machine": _machine(resolved["device"]),
        "versions": {
            "seqba": resolved["version"],
            "torch": resolved["torch_version"],
            "python": platform.python_version(),
        },
        "commit": _commit(),
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "curves": {
            event: _curve(lines.of(event), names)
            for event, names in (("train", OF_TRAINING), ("valid", OF_VALIDATION))
            if lines.of(event)
        },
    }
    results.mkdir(parents=True, exist_ok=True)
    label = "-".join(filter(None, (run.folder.name, record["variant"])))
    path = results / f"{entry.name}.{label}.{lines.seed}.json"
    with atomic_text(path) as file:
        json.dump(record, file, ensure_ascii=False, separators=(",", ":"))
        file.write("\n")
    return path


def _curve(lines: Sequence[Line], names: Sequence[str]) -> dict[str, list[float | None]]:
    """Columns of at most `CURVE_POINTS` lines, evenly spread, the last one among them."""
    step = max(1, -(-len(lines) // CURVE_POINTS))
    kept = lines[::-1][::step][::-1]
    return {name: [_round(line.get(name)) for line in kept] for name in names if kept[0].get(name) is not None}


def _seconds(lines: RunLines) -> float:
    """Of all updates, without validations and checkpoints."""
    total, before = 0.0, 0
    for line in lines.of("train"):
        total += (line["seconds_per_update"] or 0.0) * (line["update"] - before)
        before = line["update"]
    return total


def _round(value: float | None) -> float | None:
    return value if value is None or isinstance(value, int) else float(f"{value:.5g}")


def _machine(device: str) -> Mapping[str, str]:
    """Processor, threads and GPU."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    processor = f"{names[0]}, {len(names)} cores" if names else platform.processor() or platform.machine()
    gpu = {"gpu": torch.cuda.get_device_name()} if device.startswith("cuda") else {}
    return {"processor": processor, "threads": str(torch.get_num_threads()), **gpu}


def _commit() -> str:
    asked = subprocess.run(
        ["git", "-C", ROOT, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=False
    )
    return asked.stdout.strip() or "unknown"
