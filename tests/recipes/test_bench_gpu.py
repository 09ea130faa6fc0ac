"""Benchmarks of GPUs run on a CPU, and the page has the figures that were measured."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks import BENCH, NEEDS_TRANSFORMERS, run_benchmark, run_quick
from preloaded import preloaded
from torch_versions import FAKES_A_GPU


@pytest.mark.slow
@pytest.mark.skipif(not FAKES_A_GPU, reason="a GPU of fake tensors needs torch 2.10")
def test_an_update_on_a_gpu_is_few_operations_and_waits_once(tmp_path: Path) -> None:
    content = run_benchmark("launches", tmp_path)  # at base, since nothing is computed
    found = {(row["dtype"], row["copies"]): row for row in content["rows"]}
    for dtype in ("float32", "bfloat16"):
        assert found[dtype, 1]["operations"] <= 600
        assert found[dtype, 4]["operations"] <= 700
    assert [row["waits"] for row in found.values()] == [1, 1, 1, 1]  # none in the passes, one after them
    assert [row["from the CPU"] for row in found.values()] == ["0", "0", "0", "0"]
    # Python 3.11 and torch 2.13 come to 20,178 and 23,141; a walk of torch's through all modules is 5,000 more.
    assert found["float32", 1]["calls"] < 24_000
    assert found["bfloat16", 1]["calls"] < 27_000


def test_gpu_lstm_takes_each_way_through_time(tmp_path: Path) -> None:
    content = run_quick("gpu_lstm", tmp_path, "--device", "cpu")
    assert [row["dtype"] for row in content["rows"]] == ["float32", "bfloat16"]
    assert content["rows"][1]["plain"] == ""


@pytest.mark.slow
def test_gpu_tries_every_section_on_a_cpu(tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason=NEEDS_TRANSFORMERS)
    figures = tmp_path / "gpu.json"
    command = [preloaded().python, BENCH / "gpu.py", "--device", "cpu", "--toy", "--json", figures]
    command += ["--sections", "agree", "memory", "lstm"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    content = json.loads(figures.read_text(encoding="utf-8"))
    assert [table["name"] for table in content["tables"]] == ["agree", "memory", "lstm"]
    assert content["left out"] == {}
    agree = {row["what"]: row["found"] for row in content["tables"][0]["rows"]}
    assert agree["Triton's draws are torch's"].startswith("yes")
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- gpu.py: begin -->\nold\n<!-- gpu.py: end -->\nafter\n", encoding="utf-8")
    assert (
        subprocess.run(
            [preloaded().python, BENCH / "gpu.py", "--page", page, "--json", figures], check=False
        ).returncode
        == 0
    )
    text = page.read_text(encoding="utf-8")
    assert text.startswith("before\n<!-- gpu.py: begin -->")
    assert text.endswith("<!-- gpu.py: end -->\nafter\n")
    assert "old" not in text
    assert "| Triton's draws are torch's | yes" in text


def test_the_page_has_the_figures_of_the_gpu() -> None:
    """`python recipes/bench/gpu.py --page docs/benchmarks.md --json recipes/bench/results/gpu.json` writes them."""
    sys.path.insert(0, str(BENCH))
    try:
        from gpu_page import BEGIN, END, tables_of
    finally:
        sys.path.remove(str(BENCH))
    figures = json.loads((BENCH / "results" / "gpu.json").read_text(encoding="utf-8"))
    page = (BENCH.parents[1] / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    assert page.partition(BEGIN)[2].partition(END)[0].strip() == tables_of(figures)
