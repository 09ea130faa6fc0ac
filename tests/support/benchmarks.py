"""Benchmarks of recipes/bench at tiny sizes."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from preloaded import preloaded

BENCH = Path(__file__).resolve().parents[2] / "recipes" / "bench"


NEEDS_TRANSFORMERS = "compares with Hugging Face's MarianMTModel; pip install -e .[bench]"


def run_quick(name: str, folder: Path, *arguments: str) -> dict[str, Any]:
    """What a benchmark writes when it runs at its tiny size, with its settings, from a folder that isn't its own."""
    content = run_benchmark(name, folder, "--quick", *arguments)
    assert all(value > 0 for row in content["rows"] for value in row.values() if not isinstance(value, str))
    return content


def run_benchmark(name: str, folder: Path, *arguments: str) -> dict[str, Any]:
    """What a benchmark writes."""
    figures = folder / "figures.json"
    finished = subprocess.run(
        [preloaded().python, BENCH / f"{name}.py", "--threads", "1", "--json", figures, *arguments],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    content: dict[str, Any] = json.loads(figures.read_text(encoding="utf-8"))
    table = finished.stdout.splitlines()
    assert table[0] == content["title"]
    assert len(table) == 2 + len(content["rows"]) + len(content["notes"])
    return content
