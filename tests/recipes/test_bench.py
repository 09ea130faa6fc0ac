from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
from alphabet import write_alphabet
from preloaded import preloaded
from torch.utils.flop_counter import FlopCounterMode

from seqba.cli.preprocess import main as preprocess

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


@pytest.mark.slow
def test_training_throughput_compares_both_sides_with_marian(tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason=NEEDS_TRANSFORMERS)
    content = run_quick("training_throughput", tmp_path)
    rows = {row["side"]: row for row in content["rows"]}
    assert set(rows) == {"seqba", "seqba, 4 micro-batches", "seqba, malloc", "Marian", "Marian, kept"}
    assert rows["Marian"]["x Marian"] == rows["Marian"]["memory"] == 1
    assert 0 < rows["seqba"]["of GEMM"] < 1


@pytest.mark.slow
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


@pytest.mark.slow
def test_bfloat16_measures_both_dtypes_of_every_model(tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason=NEEDS_TRANSFORMERS)
    rows = run_quick("bfloat16", tmp_path)["rows"]
    dtypes = ("float32", "bfloat16")
    assert [(row["model"], row["side"], row["dtype"]) for row in rows] == [
        *[("tiny", side, dtype) for side in ("seqba", "Marian") for dtype in dtypes],
        *[("resnet8", "seqba", dtype) for dtype in dtypes],
    ]
    assert all(row["x float32"] == 1 for row in rows if row["dtype"] == "float32")


@pytest.mark.slow
def test_products_measures_the_kinds_of_both_dtypes(tmp_path: Path) -> None:
    rows = run_quick("products", tmp_path)["rows"]
    kinds = ("forward", "by input", "by weight")
    assert [(row["dtype"], row["product"]) for row in rows] == [(d, k) for d in ("float32", "bfloat16") for k in kinds]


@pytest.mark.slow
def test_bfloat16_losses_trains_every_seed_in_both_dtypes(tmp_path: Path) -> None:
    (row,) = run_quick("bfloat16_losses", tmp_path)["rows"]
    assert row["model"] == "transformer"
    assert abs(float(row["difference"])) < 0.1


@pytest.mark.slow
def test_merged_update_measures_every_plan(tmp_path: Path) -> None:
    rows = run_quick("merged_update", tmp_path)["rows"]
    assert [row["plan"] for row in rows] == ["plain", "looped", "stacked", "auto"]
    assert rows[0]["time"] == rows[0]["memory"] == 1


@pytest.mark.slow
def test_forks_measures_whole_copies_and_every_fork(tmp_path: Path) -> None:
    rows = run_quick("forks", tmp_path)["rows"]
    assert [row["fork"] for row in rows if (row["model"], row["plan"]) == ("tiny", "looped")] == [
        "whole",
        "encoder",
        "decoder-layer-2",
    ]
    whole = [row for row in rows if row["fork"] == "whole"]
    assert {row["of whole"] for row in whole} == {1.0}
    assert {row["formula"] for row in whole} == {2.0}
    assert all(1 < row["formula"] <= 2 for row in rows)


@pytest.mark.slow
def test_fork_noise_tells_a_share_for_every_fork(tmp_path: Path) -> None:
    rows = run_quick("fork_noise", tmp_path)["rows"]
    assert [row["fork"] for row in rows] == ["encoder", "decoder-layer-2"]
    assert all(0 < row["first"] <= 1 and 0 < row["after"] <= 1 for row in rows)


@pytest.mark.slow
def test_image_augmentation_compares_a_pass_with_worker_processes(tmp_path: Path) -> None:
    rows = run_quick("image_augmentation", tmp_path)["rows"]
    assert [(row["copies"], row["side"]) for row in rows] == [
        (copies, side) for copies in (1, 3) for side in ("batched", "workers")
    ]


@pytest.mark.slow
def test_keyed_dropout_measures_forward_and_backward(tmp_path: Path) -> None:
    rows = run_quick("keyed_dropout", tmp_path)["rows"]
    assert [row["part"] for row in rows[:3]] == ["forward", "backward", "both"]


@pytest.mark.slow
def test_keyed_measures_every_side(tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason=NEEDS_TRANSFORMERS)
    rows = run_quick("keyed", tmp_path)["rows"]
    assert [row["side"] for row in rows] == ["plain", "copies", "looped", "stacked"]
    assert rows[0]["time"] == rows[0]["memory"] == 1


@pytest.mark.slow
def test_decoding_finds_the_same_translations_as_generate(tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason=NEEDS_TRANSFORMERS)
    rows = run_quick("decoding", tmp_path)["rows"]
    assert [row["search"] for row in rows] == ["Hugging Face", "Hugging Face, sorted", "seqba"]
    assert [row["agree"] for row in rows] == [1, 1, 1]
    assert rows[0]["words"] == rows[2]["words"] > 5


@pytest.mark.slow
def test_decoding_finds_the_same_hypotheses_as_ctranslate2(tmp_path: Path) -> None:
    pytest.importorskip("ctranslate2", reason="pip install ctranslate2")
    rows = run_quick("decoding_ctranslate2", tmp_path)["rows"]
    sides = ["seqba float32", "seqba bfloat16", "seqba int8", "CTranslate2 float32", "CTranslate2 int8"]
    assert [row["search"] for row in rows] == sides
    assert rows[0]["agree"] == rows[3]["agree"] == 1


@pytest.mark.slow
def test_loss_memory_measures_both_losses(tmp_path: Path) -> None:
    rows = run_quick("loss_memory", tmp_path)["rows"]
    assert [row["loss"] for row in rows] == ["logits", "fused"]


@pytest.mark.slow
def test_layers_measures_every_side_of_one_gradient(tmp_path: Path) -> None:
    rows = run_benchmark("layers", tmp_path, "--quick", "--dtypes", "float32")["rows"]
    assert [row["side"] for row in rows] == ["kept", "recomputed", "compiled"]
    assert [row["gradient"] for row in rows[:2]] == [0, 0]
    assert rows[2]["gradient"] < 1e-5


@pytest.mark.slow
def test_awd_lstm_measures_every_side(tmp_path: Path) -> None:
    rows = {row["side"]: row for row in run_quick("awd_lstm", tmp_path)["rows"]}
    assert list(rows) == ["plain", "plain, kept", "shared", "looped", "stacked", "auto"]
    assert rows["plain"]["x plain"] == rows["looped"]["x looped"] == rows["plain"]["memory"] == 1
    assert all(0 < row["of GEMM"] < 1 for row in rows.values())


@pytest.mark.slow
def test_awd_lstm_curve_puts_a_run_beside_the_plain_reading(tmp_path: Path) -> None:
    write_alphabet(tmp_path / "alphabet", splits={"train": 1500})
    log = tmp_path / "run.jsonl"
    lines = [{"event": "train", "update": 2, "ppl": 50.0}, {"event": "valid", "update": 2, "ppl": 1.0}]
    log.write_text("".join(f"{json.dumps(line)}\n" for line in [*lines, {**lines[0], "ppl": 7.0}]), encoding="utf-8")
    rows = run_quick("awd_lstm_curve", tmp_path, "--data", str(tmp_path / "alphabet"))["rows"]
    assert [row["update"] for row in rows] == [2, 4]
    (row,) = run_quick("awd_lstm_curve", tmp_path, "--data", str(tmp_path / "alphabet"), "--log", str(log))["rows"]
    assert (row["update"], row["plain"], row["seqba"]) == (2, rows[0]["plain"], 50.0)


@pytest.mark.slow
def test_images_measures_every_plan_and_the_parts_of_an_update(tmp_path: Path) -> None:
    rows = run_quick("images", tmp_path)["rows"]
    assert [(row["copies"], row["plan"]) for row in rows] == [(1, "looped"), (2, "looped"), (2, "stacked")]
    assert rows[0]["x looped"] == rows[1]["x looped"] == rows[0]["x M=1"] == 1
    assert all(row["input"] + row["views"] < 1 and row["of GEMM"] < 1 for row in rows)


@pytest.mark.slow
def test_images_draws_the_throughput_of_each_batch(tmp_path: Path) -> None:
    rows = run_quick("images", tmp_path, "--table", "batches", "--plot", "plot.svg")["rows"]
    assert [row["batch"] for row in rows] == [1, 2]
    drawing = (tmp_path / "plot.svg").read_text(encoding="utf-8")
    lines = ElementTree.fromstring(drawing).iterfind(".//*[@id='line-1']/*")  # noqa: S314 - ours
    (left, high), (right, low) = (map(float, point.split()) for point in re.split("[ML]", next(lines).attrib["d"])[1:])
    assert left < right
    assert (high < low) == (rows[0]["images/s"] > rows[1]["images/s"])
    assert all(f">{row['images/s']:,.0f}<" in drawing for row in rows)


@pytest.mark.slow
def test_scaling_measures_updates_alone_and_on_two_ranks(tmp_path: Path) -> None:
    (row,) = run_quick("scaling", tmp_path, "--networks", "resnet")["rows"]
    assert (row["network"], row["copies"]) == ("resnet", 2)
    assert row["weak"] == pytest.approx(row["machine"] * row["of machine"])  # one round: ratios are exact
    assert row["strong"] == pytest.approx(row["s, 1 rank"] / row["s, 2 ranks"] / 2)


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


@pytest.mark.slow
def test_subword_sampling_is_timed_against_sentencepieces_own(tmp_path: Path) -> None:
    text = ["one two three four", "five six seven", "twenty one", "the hundred and first"] * 20
    for language in ("en", "de"):
        (tmp_path / f"train.{language}").write_text("\n".join(text) + "\n", encoding="utf-8")
    prefix = str(tmp_path / "train")
    arguments = ["-s", "en", "-t", "de", "--trainpref", prefix, "--sentencepiece", "30", "--joined-dictionary"]
    assert preprocess([*arguments, "--destdir", str(tmp_path / "bin")]) == 0
    figures = tmp_path / "figures.json"
    options = ["--max-tokens", "100", "--copies", "2", "--batches", "2", "--json", str(figures)]
    subprocess.run([preloaded().python, BENCH / "subword_sampling.py", tmp_path / "bin", *options], check=True)
    rows = {row["way"]: row for row in json.loads(figures.read_text(encoding="utf-8"))["rows"]}
    assert set(rows) == {"plain", "sampled", "sentencepiece"}
    assert rows["sampled"]["tokens"] > 1


def test_an_update_moves_between_few_files(tmp_path: Path) -> None:
    rows = {row["moves of an update"]: row for row in run_quick("moves", tmp_path, "--pairs", "1")["rows"]}
    assert set(rows) >= {"all", "outside the model"}
    assert len(rows) == 3
    assert rows["all"]["files"] > rows["outside the model"]["files"] > 10
    assert rows["all"]["moves"] <= 455
    assert rows["outside the model"]["moves"] <= 186


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
