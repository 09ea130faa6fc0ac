from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest
from alphabet import write_alphabet
from benchmarks import BENCH, NEEDS_TRANSFORMERS, run_benchmark, run_quick
from preloaded import preloaded

from seqba.cli.preprocess import main as preprocess


@pytest.mark.slow
def test_training_throughput_compares_both_sides_with_marian(tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason=NEEDS_TRANSFORMERS)
    content = run_quick("training_throughput", tmp_path)
    rows = {row["side"]: row for row in content["rows"]}
    assert set(rows) == {"seqba", "seqba, 4 micro-batches", "seqba, malloc", "Marian", "Marian, kept"}
    assert rows["Marian"]["x Marian"] == rows["Marian"]["memory"] == 1
    assert 0 < rows["seqba"]["of GEMM"] < 1


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
