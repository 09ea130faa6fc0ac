"""recipes/paper.sh: its list against the paper's tables, its costs against the models, its runs at toy size."""

from __future__ import annotations

import importlib
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from run_facts import curve
from torch.utils.flop_counter import FlopCounterMode

from seqba.data.cifar import CIFAR10, PIXEL_BYTES
from seqba.models.architectures import AWD_LSTMS
from seqba.models.builders import build_awd_lstm, build_image_classifier, build_transformer
from seqba.models.families import resolve_image_classifier, resolve_transformer
from seqba.models.options import ImageClassifierOptions, TransformerOptions
from seqba.plotting.logs import read_run

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
DATA = {
    "Cifar10": "CIFAR-10",
    "Cifar100": "CIFAR-100",
    "ImageNet": "ImageNet",
    "PTB": "Penn Treebank",
    "WMT En-De": "WMT16 En-De",
}
COLUMNS = {
    "2": ("baseline", "fixed-samples", "ba"),
    "3": ("baseline", "ba"),
    "4": ("baseline", "ba", "baseline, 10 views", "ba, 10 views"),
}
NOT_IN_TABLE_2 = {
    "amoebanet128-cifar10": "table4-amoebanet128-cifar10",
    "resnet50-large-imagenet": "section4.5-resnet50-large",
}
IMAGE_NETWORKS = {
    "ResNet44": "resnet44",
    "VGG16": "vgg16_bn",
    "WResNet28-10": "wide_resnet28_10",
    "DenseNet100-12": "densenet_bc100_12",
    "AlexNet": "alexnet",
    "MobileNet": "mobilenet_v1",
    "ResNet50": "resnet50",
}


@pytest.fixture(scope="module")
def modules() -> Iterator[dict[str, ModuleType]]:
    """The scripts of recipes/paper/, by name."""
    names = ("entry", "entries", "records", "list_entries")
    sys.path.insert(0, str(ROOT / "recipes" / "paper"))
    yield {name: importlib.import_module(name) for name in names}
    sys.path.remove(str(ROOT / "recipes" / "paper"))
    for name in names:
        del sys.modules[name]


def paper_rows() -> list[list[str]]:
    text = (HERE / "paper_tables.txt").read_text(encoding="utf-8")
    return [line.split(" | ") for line in text.splitlines() if not line.startswith("#")]


def test_the_list_has_every_row_of_the_papers_tables(modules: dict[str, ModuleType]) -> None:
    entries = modules["entries"].ENTRIES.values()
    listed = {}
    for table, network, data, copies, *figures in paper_rows():
        (entry,) = (
            each
            for each in entries
            if (each.place, each.network) == (f"table {table}", network) and f" on {DATA[data]}," in each.title
        )
        assert entry.title.endswith(f"M = {copies}")
        assert dict(entry.paper) == dict(zip(COLUMNS[table], map(float, figures), strict=True))
        assert entry.name.startswith(f"table{table}-")
        listed[entry.name] = entry
    assert set(listed) == {entry.name for entry in entries if entry.place in ("table 2", "table 3", "table 4")}
    assert modules["entries"].TABLE_1 == {
        "epoch 0,": (9.63, 0.99, 0.99, 0.99, -0.11),
        "epoch 5,": (63.24, 0.56, 0.51, 0.42, -0.04),
        "epoch 93,": (95.43, 0.13, 0.09, 0.04, 0),
    }
    assert {entry.place for entry in entries} >= {"table 1", *(f"figure {number}" for number in range(1, 5))}


@pytest.mark.parametrize("network", IMAGE_NETWORKS)
def test_products_of_image_networks_are_counted(modules: dict[str, ModuleType], network: str) -> None:
    arch = IMAGE_NETWORKS[network]
    classes, side = (1000, 224) if network in ("AlexNet", "MobileNet", "ResNet50") else (10, 32)
    config = resolve_image_classifier(arch, ImageClassifierOptions())
    with torch.device("meta"):
        model = build_image_classifier(arch, config, classes, side).eval()
        with FlopCounterMode(display=False) as counter:
            model(torch.empty(1, 3, side, side))
    assert modules["entry"].NETWORKS[network].products == pytest.approx(counter.get_total_flops() / 2, rel=0.005)


def test_products_of_searched_cells_are_those_of_their_definition(modules: dict[str, ModuleType]) -> None:
    # Counted again in tests/models/test_evolved.py.
    counted = {"DARTS": 528.4e6, "AmoebaNet": 488.9e6, "AmoebaNet (width=128)": 5729.8e6}
    assert {name: modules["entry"].NETWORKS[name].products for name in counted} == counted


def test_products_of_text_networks_are_their_weights(modules: dict[str, ModuleType]) -> None:
    with torch.device("meta"):
        lstm = build_awd_lstm(AWD_LSTMS["awd_lstm"], 10_000)
        options = TransformerOptions(share_all_embeddings=True)
        transformer = build_transformer(resolve_transformer("transformer_wmt_en_de", options), 32_768, 32_768)
    for name, model in (("LSTM", lstm), ("Transformer", transformer)):
        weights = sum(parameter.numel() for parameter in model.parameters())
        assert modules["entry"].NETWORKS[name].products == pytest.approx(weights, rel=0.005)


def test_costs_are_those_of_all_arms(modules: dict[str, ModuleType]) -> None:
    entry = modules["entries"].ENTRIES["table2-darts-cifar10"]
    # 600 epochs of 50,000 pictures, once for the baseline and 8 times for each of the others.
    assert entry.flop == pytest.approx(6 * 528.4e6 * 600 * 50_000 * 17)
    assert entry.gpu_hours == pytest.approx(entry.flop / (0.01 * 312e12) / 3600)


def test_the_head_of_the_image_rows_has_the_same_costs(recipe, modules: dict[str, ModuleType]) -> None:
    entries = modules["entries"].ENTRIES
    described = recipe("table2_images.sh", "--help").stdout
    lines = re.findall(r"^ +([a-z0-9-]+)" + 4 * r" +(\d[\d.e+]*)" + r" +(\d+)%$", described, re.MULTILINE)
    assert len(lines) == len(recipe("table2_images.sh", "--list").stdout.split())
    for row, baseline, ba, hours, ba_hours, share in lines:
        entry = entries[NOT_IN_TABLE_2.get(row, f"table2-{row}")]
        copies = {"table 2": (entry.passes - 1) // 2, "table 4": 8}.get(entry.place, entry.passes - 1)
        once = entry.flop / entry.passes, entry.gpu_hours / entry.passes
        assert (float(baseline), float(ba)) == pytest.approx((once[0], once[0] * copies), rel=0.06)
        assert (float(hours), float(ba_hours)) == pytest.approx((once[1], once[1] * copies), abs=0.06)
        assert int(share) == 100 * modules["entry"].NETWORKS[entry.network].share


def test_every_command_is_one_that_its_recipe_takes(recipe, modules: dict[str, ModuleType], tmp_path: Path) -> None:
    for command in {command for entry in modules["entries"].ENTRIES.values() for command in entry.commands}:
        words = [*shlex.split(command), "--scale", "0.1", "--seed", "1", "--out", tmp_path / "out", "--copies", "0"]
        finished = recipe(*words)
        complaint = "error: --copies takes a whole number from 1 on, not '0'\n"
        assert (finished.returncode, finished.stderr) == (2, complaint), command


def test_the_list(recipe, modules: dict[str, ModuleType]) -> None:
    finished = recipe("paper.sh", "--list")
    assert finished.returncode == 0, finished.stderr
    entries = modules["entries"].ENTRIES
    heads = [line.split()[0] for line in finished.stdout.splitlines()[3:] if line and not line.startswith(" ")]
    assert heads == list(entries)
    assert "    command  bash recipes/table2_images.sh darts-cifar10 --arm all\n" in finished.stdout
    assert "baseline 97.65; fixed-samples 97.63; ba 97.85 (top-1 %)" in finished.stdout
    assert "1.6e+18 FLOP, 144 hours at 1%" in finished.stdout


def test_a_reader_of_the_list_may_go_away() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, ROOT / "recipes" / "paper" / "list_entries.py"]
    finished = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert finished.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "which row? bash"),
        (["--list", "--row", "figure1"], "--list stands alone"),
        (["--row", "tabel2-dartz"], "--row: there is no 'tabel2-dartz' in --list; is it table2-darts-cifar10 or"),
        (["--row", "figure1", "--scale", "2"], "--scale takes a share of the run above 0 and up to 1 (0.01, say), not"),
        (["--row", "figure1", "--scale", "0"], "--scale takes a share of the run above 0 and up to 1 (0.01, say), not"),
        (["--row", "figure1", "--seed", "one"], "--seed takes a whole number from 0 on, not 'one'"),
    ],
)
def test_mistakes_are_one_line(recipe, arguments: list[str], complaint: str) -> None:
    finished = recipe("paper.sh", *arguments)
    assert (finished.returncode, finished.stdout) == (2, "")
    assert finished.stderr.startswith(f"error: {complaint}")
    assert finished.stderr.count("\n") == 1


@pytest.mark.slow
def test_a_figure_at_toy_size(recipe, tmp_path: Path) -> None:
    pictures, out, results = tmp_path / "pictures", tmp_path / "out", tmp_path / "results"
    pictures.mkdir()
    random = np.random.default_rng(1)
    for name in (*CIFAR10.train, CIFAR10.test):
        rows = np.column_stack([random.integers(0, 10, 12), random.integers(0, 256, (12, PIXEL_BYTES))])
        rows.astype(np.uint8).tofile(pictures / name)
    (pictures / CIFAR10.names).write_text("".join(f"class{number}\n" for number in range(10)), encoding="utf-8")
    own = ["--row", "figure3", "--scale", "0.0004", "--data", pictures, "--out", out, "--results", results]
    more = ["--copies", "2", "--batch-size", "10", "--", "--arch", "resnet8"]
    finished = recipe("paper.sh", *own, "--", *more)
    assert finished.returncode == 0, finished.stderr
    assert (results / "figure3.svg").read_text(encoding="utf-8").startswith("<?xml")
    for arm in ("large-batch", "ba"):
        path = results / f"figure3.{arm}-2-scale-0.0004.1.json"
        record = json.loads(path.read_text(encoding="utf-8"))
        # A fiftieth of 60 pictures would be less than an update of 2 · 10; two epochs of those.
        assert (record["updates"], record["processed"], record["unit"]) == (4, 80, "images")
        assert set(record["scores"]) == {"top1", "best_top1"}
        words = "bash recipes/paper.sh --row figure3 --scale 0.0004 -- --copies 2 --batch-size 10 -- --arch resnet8"
        assert record["command"] == words
        assert record["versions"]["torch"] == torch.__version__
        assert record["machine"]["processor"]
        assert record["curves"]["valid"]["update"] == [2, 4]
        run = read_run(str(path))
        assert (run.arm, run.copies, run.seed) == (arm, 2 if arm == "ba" else 1, 1)
        assert [line["update"] for line in run.of("valid")] == [2, 4]
        assert run.of("train")[-1]["processed_images"] == 80


def test_curves_are_thinned_to_200_points() -> None:
    lines = [{"update": number, "nll": number / 3, "top1": None} for number in range(1, 451)]
    thinned = curve(lines, ("nll", "top1", "ppl"))
    assert list(thinned) == ["update", "nll"]
    assert thinned["update"] == list(range(3, 451, 3))
    assert thinned["nll"][0] == 1.0
    assert len(curve(lines[:200], ())["update"]) == 200
