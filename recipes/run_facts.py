"""Facts of a run that its record has, whichever recipe made it: machine, commit, time, and curves of few points."""

from __future__ import annotations

import datetime
import json
import os
import platform
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from seqba.data.files import atomic_text
from seqba.plotting.logs import Line, RunLines

CURVE_POINTS = 200
PAUSED = 10.0
ROOT = Path(__file__).resolve().parents[1]


def origin(resolved: Mapping[str, Any]) -> dict[str, Any]:
    """What a run was made by, from its `run.json`: size, machine, versions, commit and date."""
    return {
        "parameters": resolved["parameters"],
        "machine": machine(resolved["device"]),
        "versions": {
            "seqba": resolved["version"],
            "torch": resolved["torch_version"],
            "python": platform.python_version(),
        },
        "commit": commit(),
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
    }


def write_compactly(record: Mapping[str, Any], path: Path) -> None:
    """Writes a record, in whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_text(path) as file:
        json.dump(record, file, ensure_ascii=False, separators=(",", ":"))
        file.write("\n")


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


def seconds_of_updates(lines: RunLines) -> float | None:
    """Seconds of all updates, without validations and checkpoints.

    Updates of a line that says more than `PAUSED` times the median's seconds count as the median's: the process was
    stopped meanwhile, or the machine asleep.
    """
    parts, before = [], 0
    for line in lines.of("train"):
        parts.append((line["seconds_per_update"] or 0.0, line["update"] - before))
        before = line["update"]
    if not parts:
        return 0.0
    usual = statistics.median(seconds for seconds, _ in parts)
    return rounded(sum((seconds if seconds <= PAUSED * usual else usual) * updates for seconds, updates in parts))


def curve(lines: Sequence[Line], names: Sequence[str]) -> dict[str, list[float | None]]:
    """Columns of at most `CURVE_POINTS` lines, evenly spread, the last one among them; the update is the first."""
    step = max(1, -(-len(lines) // CURVE_POINTS))
    kept = list(lines)[::-1][::step][::-1]
    present = [name for name in names if any(line.get(name) is not None for line in kept)]
    return {name: [rounded(line.get(name)) for line in kept] for name in ("update", *present)}


def rounded(value: float | None) -> float | None:
    """Five digits, which a page needs at most."""
    return value if value is None or isinstance(value, int) else float(f"{value:.5g}")


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]}, {len(names)} cores" if names else platform.processor() or platform.machine()
