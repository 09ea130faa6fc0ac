"""Benchmarks count what is computed, compare what is comparable, and end as commands do."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from time import process_time
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from benchmarks import BENCH, NEEDS_TRANSFORMERS, run_quick
from torch.utils.flop_counter import FlopCounterMode


def test_the_operations_counted_are_those_of_an_images_products(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCH)
    import images

    torch.manual_seed(1)
    model = images.network("resnet8")
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(2, 3, 32, 32)).sum().backward()
    assert counter.get_total_flops() == 2 * images.flops_of_image("resnet8")


def test_an_update_looks_at_as_many_views_as_it_has_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCH)
    import images

    batch = images.random_batches({"batch": 3, "network": "resnet8"})(1)
    view = images.training_view(images.ViewOptions(cutout=16), 32)
    seen: list[int] = []
    view.register_forward_hook(lambda _module, inputs, _output: seen.append(len(inputs[0])))
    for plan, expected in {"looped": [3, 3, 3, 3], "stacked": [12]}.items():
        seen.clear()
        images.look(view, batch, {"copies": 4, "plan": plan}, number=1)
        assert seen == expected


def test_the_plain_recipe_computes_what_ours_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCH)
    import awd_lstm
    from plain_awd_lstm import PlainAWDLSTM, plain_loss

    torch.manual_seed(1)
    size = awd_lstm.SIZES["tiny"]
    plain = PlainAWDLSTM(size.vocabulary, size.layers, size.embed_dim, size.hidden_size)
    ours = awd_lstm.build_ours(size)
    names = {"encoder.": "embedding.", "rnns.": "layers.", "decoder_bias": "output_bias"}
    weights = {}
    for name, value in plain.state_dict().items():
        prefix = next(prefix for prefix in names if name.startswith(prefix))
        weights[name.replace(prefix, names[prefix], 1)] = value
    ours.load_state_dict(weights)
    text = torch.randint(0, size.vocabulary, (3, 9))
    monkeypatch.setattr(torch.nn.functional, "dropout", lambda x, p: x)
    loss, nll, _ = plain_loss(plain, text[:, :-1], text[:, 1:], None)
    logits, _ = ours.eval()(text[:, :-1])
    window = ours.window(text[:, :-1])
    entropy = torch.nn.functional.cross_entropy(logits.flatten(0, 1), text[:, 1:].flatten())
    regularisers = 2 * window.hidden.square().mean() + window.raw.diff(dim=1).square().mean()
    assert loss.item() == pytest.approx((entropy + regularisers).item(), rel=1e-5)
    assert nll.item() == pytest.approx(entropy.item(), rel=1e-5)


def test_products_are_timed_by_the_clock_of_the_updates(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine that others use too, operations by the clock and by the processor's seconds are two things."""
    monkeypatch.syspath_prepend(BENCH)
    import bfloat16
    import harness

    ticks = itertools.count(step=2.0)
    assert harness.gemm_rates([(3, 4, 5)], clock=lambda: next(ticks)) == {"3x4x5": 2 * 3 * 4 * 5 / 2.0}
    asked: list[Any] = []
    monkeypatch.setattr(bfloat16, "gemm_rates", lambda *_, **options: asked.append(options) or {"product": 7.0})
    assert bfloat16.build_side({"side": "product", "dtype": "float32"})(0) == 7.0
    assert asked[0]["clock"] is process_time


def test_the_rate_of_an_update_is_that_of_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCH)
    import bfloat16

    update = {"clock": 1.0, "work": 2.0, "flops": 6e9}  # two threads, a second each
    answers = {f"seqba {dtype}": [update] for dtype in bfloat16.DTYPES}
    answers |= {f"product {dtype}": [4e9] for dtype in bfloat16.DTYPES}
    monkeypatch.setattr(bfloat16, "take_turns", lambda *_: (answers, dict.fromkeys(answers, 1.0)))
    rows = bfloat16.measure("resnet8", SimpleNamespace(copies=1, max_tokens=1, batches=1, threads=2, rounds=1))
    assert [(row["GFLOP/s"], row["of GEMM"]) for row in rows] == [(3.0, 0.75)] * 2


def test_a_side_that_dies_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCH)
    import harness

    script = tmp_path / "dies.py"
    script.write_text("import sys\nsys.exit(3)\n", encoding="utf-8")
    with pytest.raises(RuntimeError, match=r"'copies': 4.* ended with status 3"):
        harness.take_turns(str(script), {"ours": {"copies": 4}}, rounds=1)


@pytest.mark.slow
def test_the_operations_counted_are_those_that_marian_makes(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers", reason=NEEDS_TRANSFORMERS)
    monkeypatch.syspath_prepend(BENCH)
    import marian
    import numpy as np
    import workload

    size, vocabulary, rows, source, target = workload.SIZES["tiny"], 100, 3, 5, 7
    batch = workload.pair_batch(
        np.full(rows, source), np.full(rows, target), vocabulary, torch.Generator().manual_seed(1)
    )
    model = marian.build_marian(size, vocabulary=vocabulary)
    model.set_attn_implementation("eager")
    with FlopCounterMode(display=False) as counter:
        marian.plain_backward(model.train(), batch, copies=1)
    # Marian multiplies the half of its causal attention that the mask throws away.
    thrown_away = rows * (target**2 - target * (target + 1) / 2)
    counted = workload.training_flops(size, batch, vocabulary=vocabulary)
    assert counter.get_total_flops() == counted + 12 * size.layers * size.embed_dim * thrown_away


@pytest.mark.parametrize(("plan", "most", "most_outside"), [("looped", 465, 200), ("stacked", 290, 155)])
def test_an_update_moves_between_few_files(plan: str, most: int, most_outside: int, tmp_path: Path) -> None:
    told = run_quick("moves", tmp_path, "--pairs", "1", "--plan", plan)
    rows = {row["moves of an update"]: row for row in told["rows"]}
    assert set(rows) >= {"all", "outside the model"}
    assert len(rows) == 3
    assert rows["all"]["files"] > rows["outside the model"]["files"] > 10
    assert rows["all"]["moves"] <= most
    assert rows["outside the model"]["moves"] <= most_outside


def test_a_benchmark_whose_reader_went_away_is_no_traceback() -> None:
    command = [sys.executable, BENCH / "keyed_dropout.py", "--help"]
    buffered = {**os.environ, "PYTHONUNBUFFERED": ""}  # as usual: written at the end
    process = subprocess.Popen(command, env=buffered, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    _, told = process.communicate(timeout=60)
    assert (process.returncode, told) == (141, b"")


@pytest.mark.slow
def test_ctrl_c_ends_a_benchmark_and_its_sides_without_a_traceback() -> None:
    command = [sys.executable, BENCH / "layers.py", "--quick", "--threads", "1", "--rounds", "100000"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    sides: list[Path] = []
    for _ in range(600):
        sides = [
            Path("/proc", child)
            for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        ]
        if sides:
            break
        time.sleep(0.1)
    time.sleep(1)  # in the midst of importing
    os.killpg(process.pid, signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert (process.returncode, told) == (130, "interrupted\n")
    assert sides
    assert not any(side.exists() for side in sides)


def test_every_benchmark_ends_as_commands_do() -> None:
    scripts = {path.name: path.read_text(encoding="utf-8") for path in BENCH.glob("*.py")}
    started = {name for name, text in scripts.items() if "__main__" in text} - {"first_page.py"}  # which only draws
    assert len(started) > 20
    assert {name for name in started if "sys.exit(run_command(main))" not in scripts[name]} == set()
