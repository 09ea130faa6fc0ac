from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seqba.checkpoints.file import read_checkpoint
from seqba.data.cifar import CIFAR10, CIFAR100, PIXEL_BYTES, Layout

ROOT = Path(__file__).resolve().parents[2]
RUNS = ["baseline", "fixed-samples-2", "ba-2"]
TINY = ["--", "--arch", "resnet8"]
ROWS = {
    "vgg16-cifar10": ("vgg16_bn", "32", "64", 200, "0.1", "60,120,160", "0.2", "5e-4", "all"),
    "wrn28-10-cifar10": ("wide_resnet28_10", "6", "128", 200, "0.1", "60,120,160", "0.2", "5e-4", "weights"),
    "darts-cifar10": ("darts", "8", "96", 600, "0.025", None, None, "3e-4", "weights"),
    "amoebanet-cifar10": ("amoebanet", "8", "96", 600, "0.025", None, None, "3e-4", "weights"),
    "amoebanet128-cifar10": ("amoebanet", "8", "96", 600, "0.025", None, None, "3e-4", "weights"),
    "resnet44-cifar100": ("resnet44", "40", "64", 100, "0.1", "81,122,164", "0.1", "1e-4", "weights"),
    "vgg16-cifar100": ("vgg16_bn", "32", "64", 200, "0.1", "60,120,160", "0.2", "5e-4", "all"),
    "wrn28-10-cifar100": ("wide_resnet28_10", "10", "128", 200, "0.1", "60,120,160", "0.2", "5e-4", "weights"),
    "densenet100-cifar100": ("densenet_bc100_12", "4", "64", 300, "0.1", "150,225", "0.1", "1e-4", "weights"),
    "alexnet-imagenet": ("alexnet", "8", "256", 30, "0.01", "10,15,20,25", "0.5,0.2,0.5,0.2", "5e-4", "all"),
    "mobilenet-imagenet": ("mobilenet_v1", "4", "256", 90, "0.1", "30,60,80", "0.1", "1e-4", "weights"),
    "resnet50-large-imagenet": ("resnet50", "4", "8192", 90, "3.2", "30,60,80", "0.1", "1e-4", "weights"),
}
"""Network, M, batch, epochs, learning rate, its drops and factors (None: a cosine), weight decay, and what decays."""

WINDOWS = {"--augmentation": "crop", "--crop-padding": "0", "--decode-size": "256"}
RELEASED = {
    "densenet100-cifar100": {"--conv-init": "fan-in"},
    "alexnet-imagenet": {**WINDOWS, "--weight-decay-until": "15"},
    "mobilenet-imagenet": {**WINDOWS, "--weight-decay-on": "weights-not-depthwise"},
}
"""Settings that only the released code of Batch Augmentation has."""

ALL_SETTINGS = (*WINDOWS, "--conv-init", "--weight-decay-until", "--weight-decay-on")

SWITCHES = ("--maximize-best-checkpoint-metric", "--quiet", "--fresh")

STUB = """\
import json, sys
from pathlib import Path

home, name, arguments = Path(sys.argv[1]).parent, Path(sys.argv[1]).name, sys.argv[2:]
if name == "python":
    name = Path(arguments.pop(0)).name
with open(home / "calls.jsonl", "a") as calls:
    calls.write(json.dumps([name, *arguments]) + chr(10))
if name == "seqba-train":
    Path(arguments[arguments.index("--save-dir") + 1]).mkdir(exist_ok=True, parents=True)
elif name == "seqba-eval-image":
    views = arguments[arguments.index("--tta") + 1] if "--tta" in arguments else "0"
    print("Evaluated 8 images")
    print(f"Top-1: 9{views}.{'50' if 'best' in str(arguments) else '25'}%, Top-5: 99.00%, Loss (nats): 0.1")
"""


def write_coloured_cifar(folder: Path, layout: Layout, per_file: int) -> Path:
    """Pictures in the official layout, each of its class's colour and a little noise: soon learned."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(1)
    for name in (*layout.train, layout.test):
        labels = random.integers(0, 10, per_file)
        colours = np.random.default_rng(2).integers(40, 216, (10, 3))[labels]
        pixels = np.repeat(colours, PIXEL_BYTES // 3, axis=1) + random.integers(-20, 21, (per_file, PIXEL_BYTES))
        kinds = [np.zeros(per_file, int), labels][-len(layout.kinds) :]
        np.column_stack([*kinds, pixels]).astype(np.uint8).tofile(folder / name)
    names = "".join(f"class{number}\n" for number in range(layout.kinds[-1]))
    (folder / layout.names).write_text(names, encoding="utf-8")
    return folder


def write_coloured_folders(folder: Path, per_class: int) -> Path:
    """Two classes in the layout of ImageNet, one red, one blue, in several sizes."""
    for split in ("train", "val"):
        for name, colour in {"n01": (200, 40, 40), "n02": (40, 40, 200)}.items():
            (folder / split / name).mkdir(parents=True)
            for number in range(per_class):
                Image.new("RGB", (20 + number % 5, 20), colour).save(folder / split / name / f"{number}.png")
    return folder


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """CIFAR-10 with 60 training and 12 test pictures."""
    return write_coloured_cifar(tmp_path / "pictures", CIFAR10, 12)


@pytest.fixture
def stubs(tmp_path: Path) -> Path:
    """An environment whose programs only write down how they were called. There are $PICTURES training pictures."""
    programs = tmp_path / "venv" / "bin"
    programs.mkdir(parents=True)
    (programs / "stub.py").write_text(STUB, encoding="utf-8")
    stub = f'exec {sys.executable} "${{0%/*}}/stub.py" "$0" "$@"'
    commands = {
        "python": f'case "$1" in */data_prep/*) {stub} ;; *) echo "${{PICTURES:-}}" ;; esac',
        **dict.fromkeys(("seqba-train", "seqba-eval-image"), stub),
    }
    for name, line in commands.items():
        (programs / name).write_text(f"#!/bin/sh\n{line}\n", encoding="utf-8")
        (programs / name).chmod(0o755)
    return programs.parent


def calls(stubs: Path, command: str) -> list[dict[str, str]]:
    """The options of every call of a command, the last of each name; its first argument under "data"."""
    lines = map(json.loads, (stubs / "bin" / "calls.jsonl").read_text(encoding="utf-8").splitlines())
    found = []
    for name, *words in lines:
        if name == command:
            named = {name: "" for name in SWITCHES if name in words}
            words = [word for word in words if word not in named]
            if len(words) % 2:
                named["data"] = words.pop(0)
            found.append(named | dict(zip(words[::2], words[1::2], strict=True)))
    return found


def table(stdout: str) -> dict[str, list[str]]:
    """The closing table, by its first column."""
    lines = stdout.splitlines()
    head = max(number for number, line in enumerate(lines) if line.startswith("top-1 %"))
    return {line.split()[0]: line.split()[1:] for line in lines[head + 1 :]}


@pytest.mark.slow
def test_three_arms_from_pictures_to_accuracies(recipe, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ["--data", pictures, "--copies", "2", "--epochs", "3", "--batch-size", "10", "--out", out]
    finished = recipe("cifar10_resnet44.sh", *arguments, "--arm", "all", *TINY)
    assert finished.returncode == 0, finished.stderr
    found = table(finished.stdout)
    assert list(found) == RUNS
    assert all(30 < float(figure) <= 100 for row in found.values() for figure in row)  # chance is 10
    for run in RUNS:
        last = read_checkpoint(out / run / "checkpoint_last.pt")
        assert last["cfg"]["training"]["grid"]["arm"] == run.removesuffix("-2")
        assert last["optimizer_history"][-1]["num_updates"] == 18
        lines = map(json.loads, (out / f"{run}.jsonl").read_text(encoding="utf-8").splitlines())
        assert [line["update"] for line in lines if line["event"] == "valid"] == [6, 12, 18]
    again = recipe("cifar10_resnet44.sh", *arguments, "--arm", "ba", *TINY)
    assert again.returncode == 0, again.stderr
    assert table(again.stdout) == {"ba-2": found["ba-2"]}


@pytest.mark.slow
def test_a_row_on_a_subset(recipe, tmp_path: Path) -> None:
    pictures, out = write_coloured_cifar(tmp_path / "pictures", CIFAR100, 30), tmp_path / "out"
    arguments = ["--data", pictures, "--copies", "2", "--updates", "3", "--batch-size", "10", "--train-pictures", "20"]
    options = ["--mixup", "0.2", "--tta", "2", "--out", out]
    finished = recipe("table2_images.sh", "resnet44-cifar100", *arguments, *options, *TINY)
    assert finished.returncode == 0, finished.stderr
    assert [(run, len(figures)) for run, figures in table(finished.stdout).items()] == [("ba-2", 3)]
    last = read_checkpoint(out / "ba-2" / "checkpoint_last.pt")
    assert last["optimizer_history"][-1]["num_updates"] == 3
    images = last["cfg"]["task"]["images"]
    assert (images["hold_out"], images["mixup"], images["cutout"]) == (10, 0.2, 16)


@pytest.mark.slow
@pytest.mark.parametrize("row", ["darts-cifar10", "amoebanet-cifar10"])
def test_rows_of_cells_on_toy_pictures(recipe, tmp_path: Path, row: str) -> None:
    pictures, out = write_coloured_cifar(tmp_path / "pictures", CIFAR10, 20), tmp_path / "out"
    arguments = ["--data", pictures, "--copies", "2", "--updates", "3", "--batch-size", "10", "--out", out]
    finished = recipe("table2_images.sh", row, *arguments, "--", "--init-channels", "2", "--layers", "3")
    assert finished.returncode == 0, finished.stderr
    assert list(table(finished.stdout)) == ["ba-2"]
    options = read_checkpoint(out / "ba-2" / "checkpoint_last.pt")["cfg"]["model"]["options"]
    assert (options["drop_path"], options["auxiliary_weight"]) == (0.2, 0.4)
    lines = map(json.loads, (out / "ba-2.jsonl").read_text(encoding="utf-8").splitlines())
    assert [line["update"] for line in lines if line["event"] == "valid"] == [3]


@pytest.mark.slow
def test_pictures_of_many_sizes_some_held_out(recipe, tmp_path: Path) -> None:
    pictures, out = write_coloured_folders(tmp_path / "pictures", 12), tmp_path / "out"
    small = ["--image-size", "16", "--decode-size", "20", "--num-workers", "0"]
    arguments = ["--data", pictures, "--copies", "2", "--updates", "5", "--batch-size", "8", "--hold-out", "6"]
    finished = recipe("imagenet_resnet50.sh", *arguments, "--out", out, *TINY, *small)
    assert finished.returncode == 0, finished.stderr
    assert list(table(finished.stdout)) == ["ba-2"]
    lines = map(json.loads, (out / "ba-2.jsonl").read_text(encoding="utf-8").splitlines())
    validations = [(line["subset"], line["update"]) for line in lines if line["event"] == "valid"]
    assert validations == [("held-out", 2), ("held-out", 4), ("held-out", 5)]  # 18 pictures are two whole batches


def test_every_arm_makes_the_same_updates_and_validations(recipe, stubs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ["--data", "here", "--arm", "all", "--copies", "3", "--epochs", "7", "--batch-size", "8"]
    finished = recipe("cifar10_resnet44.sh", *arguments, "--out", out, *TINY, SEQBA_VENV=str(stubs), PICTURES="60")
    assert finished.returncode == 0, finished.stderr
    trained = calls(stubs, "seqba-train")
    assert [(call["--arm"], call["--copies"]) for call in trained] == [
        ("baseline", "1"),
        ("fixed-samples", "3"),
        ("ba", "3"),
    ]
    for call in trained:  # 60 pictures are 7 whole batches of 8
        assert (call["--validate-interval-updates"], call["--max-update"]) == ("7", "49")
        assert call["--save-interval-updates"] == "7"
        assert "--max-epoch" not in call
        assert (call["--batch-size"], call["--seed"], call["--arch"]) == ("8", "1", "resnet8")
        assert (call["--lr-scheduler"], call["--lr-drops"], call["--lr"]) == ("step", "81,122,164", "0.1")
        assert (call["--optimizer"], call["--momentum"], call["--cutout"]) == ("sgd", "0.9", "16")
        assert (call["--weight-decay"], call["--weight-decay-on"]) == ("1e-4", "weights")
        assert (call["--valid-subset"], call["--best-checkpoint-metric"]) == ("test", "top1")
        assert call["data"] == "here"
        assert "--maximize-best-checkpoint-metric" in call
        assert not {"--hold-out", "--mixup"} & set(call)
    looked_at = [
        (Path(call["--path"]).parent.name, Path(call["--path"]).stem) for call in calls(stubs, "seqba-eval-image")
    ]
    names = ["baseline", "fixed-samples-3", "ba-3"]
    assert looked_at == [(name, f"checkpoint_{which}") for name in names for which in ("best", "last")]
    assert table(finished.stdout) == {name: ["90.50", "90.25"] for name in names}


@pytest.mark.parametrize("arm", ["large-batch", "fixed-rows"])
def test_the_further_arms_are_trained_as_the_others(recipe, stubs: Path, tmp_path: Path, arm: str) -> None:
    arguments = ["--data", "here", "--arm", arm, "--copies", "4,8", "--epochs", "7", "--batch-size", "8"]
    out = tmp_path / "out"
    finished = recipe("cifar10_resnet44.sh", *arguments, "--out", out, *TINY[:1], SEQBA_VENV=str(stubs), PICTURES="60")
    assert finished.returncode == 0, finished.stderr
    trained = calls(stubs, "seqba-train")
    assert [(call["--arm"], call["--copies"], call["--batch-size"]) for call in trained] == [
        (arm, "4", "8"),
        (arm, "8", "8"),
    ]
    for call in trained:
        assert (call["--validate-interval-updates"], call["--max-update"]) == ("7", "49")
    assert list(table(finished.stdout)) == [f"{arm}-4", f"{arm}-8"]


def test_several_numbers_of_copies_share_one_baseline(recipe, stubs: Path, tmp_path: Path) -> None:
    arguments = [
        "--data",
        "here",
        "--arm",
        "all",
        "--copies",
        "2,4",
        "--batch-size",
        "8",
        "--updates",
        "3",
        "--tta",
        "5",
        "--seed",
        "7",
    ]
    finished = recipe(
        "cifar10_resnet44.sh", *arguments, "--out", tmp_path / "out", SEQBA_VENV=str(stubs), PICTURES="60"
    )
    assert finished.returncode == 0, finished.stderr
    saved = [(Path(call["--save-dir"]).name, call["--copies"]) for call in calls(stubs, "seqba-train")]
    assert saved == [("baseline", "1"), *((f"{arm}-{m}", m) for m in "24" for arm in ("fixed-samples", "ba"))]
    assert list(table(finished.stdout).values()) == [["90.50", "90.25", "95.25"]] * 5
    assert "last, 5 views" in finished.stdout
    assert {(call["--max-update"], call["--seed"]) for call in calls(stubs, "seqba-train")} == {("3", "7")}
    views = [(call["--tta"], call["--seed"]) for call in calls(stubs, "seqba-eval-image") if "--tta" in call]
    assert views == [("5", "7")] * 5


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], {"--lr": "0.1", "--lr-drops": "81,122,164", "--max-update": "700", "--copies": "40"}),
        (["--regime", "200", "--mixup", "0.2"], {"--lr-drops": "81,122,164", "--max-update": "1400", "--mixup": "0.2"}),
        (["--regime", "23"], {"--lr": "0.2", "--lr-drops": "11,17", "--max-update": "161"}),
        (["--regime", "23", "--epochs", "2"], {"--lr-drops": "11,17", "--max-update": "14"}),
        (["--hold-out", "12"], {"--hold-out": "12", "--valid-subset": "held-out", "--max-update": "600"}),
        (["--train-pictures", "20"], {"--hold-out": "40", "--valid-subset": "test", "--max-update": "200"}),
        (["--train-pictures", "60"], {"--hold-out": "0", "--valid-subset": "test", "--max-update": "700"}),
    ],
)
def test_options(recipe, stubs: Path, tmp_path: Path, arguments: list[str], expected: dict[str, str]) -> None:
    given = ["--data", "here", "--batch-size", "8", "--out", tmp_path / "out", *arguments]
    finished = recipe("cifar10_resnet44.sh", *given, SEQBA_VENV=str(stubs), PICTURES="60")
    assert finished.returncode == 0, finished.stderr
    (trained,) = calls(stubs, "seqba-train")
    assert {name: trained[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("script", "scale", "expected"),
    [
        # Half of 60 pictures are 3 whole batches of 8, half of 100 epochs 50: 81 of 100 are 121.5 of 150 updates.
        (
            ["cifar10_resnet44.sh"],
            "0.25",
            {"--max-update": "150", "--hold-out": "30", "--lr-drop-unit": "update", "--lr-drops": "122,183,246"},
        ),
        (["cifar10_resnet44.sh", "--epochs", "10"], "0.25", {"--max-update": "15", "--lr-drops": "122,183,246"}),
        # An update of fixed-samples has 16 pictures, one of the 2 epochs 2 updates.
        (["cifar10_resnet44.sh"], "4e-4", {"--max-update": "4", "--hold-out": "44", "--lr-drops": "3,5,7"}),
        (["cifar10_resnet44.sh"], "1", {"--max-update": "700", "--lr-drops": "567,854,1148"}),
        (
            ["table2_images.sh", "darts-cifar10"],
            "0.01",
            {"--max-update": "120", "--lr-period-updates": "120", "--drop-path-epochs": "60"},
        ),
        (
            ["table2_images.sh", "alexnet-imagenet"],
            "0.01",
            {"--max-update": "6", "--lr-drops": "2,3,4,5", "--weight-decay-until": "2"},
        ),
    ],
)
def test_a_shortened_run_has_its_schedule_to_the_end(
    recipe, stubs: Path, tmp_path: Path, script: list[str], scale: str, expected: dict[str, str]
) -> None:
    given = ["--data", "here", "--batch-size", "8", "--copies", "2", "--scale", scale, "--out", tmp_path / "out"]
    finished = recipe(*script, *given, SEQBA_VENV=str(stubs), PICTURES="60")
    assert finished.returncode == 0, finished.stderr
    (trained,) = calls(stubs, "seqba-train")
    assert {name: trained.get(name) for name in expected} == expected
    assert ("--hold-out" in trained) == (scale != "1")
    assert trained["--valid-subset"] == ("val" if "imagenet" in script[-1] else "test")


def test_table_1_is_measured_in_three_states(recipe, stubs: Path, tmp_path: Path) -> None:
    (stubs / "bin" / "seqba-measure").write_bytes((stubs / "bin" / "seqba-train").read_bytes())
    (stubs / "bin" / "seqba-measure").chmod(0o755)
    out = tmp_path / "out"
    given = ["--data", "here", "--copies", "2", "--pairs", "3", "--scale", "0.25", "--out", out]
    finished = recipe(
        "table1_correlations.sh", *given, "--", "--arch", "resnet8", SEQBA_VENV=str(stubs), PICTURES="640"
    )
    assert finished.returncode == 0, finished.stderr
    trained = [(call["--max-update"], call["--lr-drops"], call["--arch"]) for call in calls(stubs, "seqba-train")]
    assert trained == [("15", "203,305,410", "resnet8"), ("235", "203,305,410", "resnet8")]  # 5 updates an epoch
    measured = calls(stubs, "seqba-measure")
    states = [(Path(call["--json"]).stem, call["--pairs"]) for call in measured]
    names = [f"epoch-{epoch}-cutout-{cutout}" for epoch in (0, 5, 93) for cutout in (0, 16)]
    assert states == [(name, "3") for name in names]
    assert {call["--path"] for call in measured} == {str(out / "ba-2" / "checkpoint_last.pt")}
    assert ["--fresh" in call for call in measured] == [True] * 2 + [False] * 4


@pytest.mark.parametrize(
    ("regime", "drops", "epochs"), [("90", "30,60,80", 90), ("40", "30,35", 40), ("23", "15,20,22", 23)]
)
def test_regimes_of_imagenet(recipe, stubs: Path, tmp_path: Path, regime: str, drops: str, epochs: int) -> None:
    arguments = ["--data", "here", "--regime", regime, "--batch-size", "30", "--out", tmp_path / "out"]
    finished = recipe("imagenet_resnet50.sh", *arguments, SEQBA_VENV=str(stubs), PICTURES="60")
    assert finished.returncode == 0, finished.stderr
    (trained,) = calls(stubs, "seqba-train")
    assert (trained["--lr-drops"], trained["--max-update"]) == (drops, str(2 * epochs))
    assert (trained["--arch"], trained["--augmentation"], trained["--copies"]) == ("resnet50", "resized-crop", "4")
    assert (trained["--lr"], trained["--weight-decay"], trained["--weight-decay-on"]) == ("0.1", "1e-4", "weights")
    assert (trained["--image-size"], trained["--decode-size"]) == ("224", "400")
    assert trained["--valid-subset"] == "val"
    assert {call["--gen-subset"] for call in calls(stubs, "seqba-eval-image")} == {"val"}


@pytest.mark.parametrize("row", ROWS)
def test_rows(recipe, stubs: Path, tmp_path: Path, row: str) -> None:
    arch, copies, batch, epochs, lr, drops, shrink, decay, on = ROWS[row]
    environment = {"SEQBA_VENV": str(stubs), "PICTURES": str(2 * int(batch))}
    finished = recipe("table2_images.sh", row, "--data", "here", "--out", tmp_path / "out", **environment)
    assert finished.returncode == 0, finished.stderr
    (trained,) = calls(stubs, "seqba-train")
    assert (trained["--arch"], trained["--copies"], trained["--batch-size"]) == (arch, copies, batch)
    assert (trained["--lr"], trained.get("--lr-drops"), trained.get("--lr-shrink")) == (lr, drops, shrink)
    cosine = {"--lr-period-updates": "1200", "--drop-path-epochs": "600", "--clip-norm": "5"} if drops is None else {}
    assert {name: trained.get(name) for name in ("--lr-period-updates", "--drop-path-epochs", "--clip-norm")} == {
        **dict.fromkeys(("--lr-period-updates", "--drop-path-epochs", "--clip-norm")),
        **cosine,
    }
    assert trained.get("--init-channels") == ("128" if row.startswith("amoebanet128") else None)
    assert trained["--lr-scheduler"] == ("cosine" if cosine else "step")
    assert trained["--weight-decay"] == decay
    assert trained["--max-update"] == str(2 * epochs)
    is_large = row == "resnet50-large-imagenet"
    boxes = {"--augmentation": "resized-crop", "--decode-size": "400"}
    released = RELEASED.get(row, boxes if is_large else {})
    warmup = {"--warmup-updates": "10", "--warmup-init-lr": "0.1", "--ghost-batch": "32"} if is_large else {}
    assert {
        name: trained[name] for name in ("--warmup-updates", "--warmup-init-lr", "--ghost-batch") if name in trained
    } == warmup
    assert {name: trained.get(name) for name in ALL_SETTINGS} == dict.fromkeys(ALL_SETTINGS) | {
        "--weight-decay-on": on,
        **released,
    }
    if row.endswith("imagenet"):
        assert (trained["--image-size"], trained["--valid-subset"]) == ("224", "val")
    else:
        assert (trained["--cutout"], trained["--valid-subset"]) == ("16", "test")


@pytest.mark.parametrize("row", ROWS)
def test_rows_in_usual_settings(recipe, stubs: Path, tmp_path: Path, row: str) -> None:
    given = ["--data", "here", "--settings", "usual", "--out", tmp_path / "out"]
    finished = recipe("table2_images.sh", row, *given, SEQBA_VENV=str(stubs), PICTURES="512")
    if row not in RELEASED:
        assert (finished.returncode, finished.stdout) == (2, "")
        assert finished.stderr == f"error: --settings: those of {row} and of the released code are the same\n"
        return
    assert finished.returncode == 0, finished.stderr
    (trained,) = calls(stubs, "seqba-train")
    boxes = {"--augmentation": "resized-crop", "--decode-size": "400"}
    usual = {"--conv-init": "fan-out"} if row.startswith("densenet") else boxes
    assert {name: trained.get(name) for name in ALL_SETTINGS} == dict.fromkeys(ALL_SETTINGS) | {
        "--weight-decay-on": ROWS[row][-1],
        **usual,
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("row", "small", "expected"),
    [
        ("alexnet-imagenet", ["--arch", "resnet8"], {"weight_decay_until": 15, "weight_decay_on": "all"}),
        ("mobilenet-imagenet", [], {"weight_decay_until": None, "weight_decay_on": "weights-not-depthwise"}),
    ],
)
def test_rows_of_imagenet_as_released_on_toy_pictures(
    recipe, tmp_path: Path, row: str, small: list[str], expected: dict[str, object]
) -> None:
    pictures, out = write_coloured_folders(tmp_path / "pictures", 4), tmp_path / "out"
    options = ["--data", pictures, "--copies", "2", "--updates", "2", "--batch-size", "4", "--tta", "2", "--out", out]
    views = ["--tta-average", "logits", "--mixup", "0.2", "--mixup-lambda", "shared"]
    finished = recipe(
        "table2_images.sh", row, *options, *views, "--", "--image-size", "32", "--num-workers", "0", *small
    )
    assert finished.returncode == 0, finished.stderr
    assert [(run, len(figures)) for run, figures in table(finished.stdout).items()] == [("ba-2", 3)]
    cfg = read_checkpoint(out / "ba-2" / "checkpoint_last.pt")["cfg"]
    images = cfg["task"]["images"]
    assert (images["augmentation"], images["crop_padding"], images["decode_size"]) == ("crop", 0, 256)
    assert images["mixup_lambda"] == "shared"
    assert {name: cfg["training"]["optimisation"][name] for name in expected} == expected


def test_how_views_are_averaged_and_pictures_mixed_reaches_the_commands(recipe, stubs: Path, tmp_path: Path) -> None:
    tta = ["--tta", "5", "--tta-average", "logits", "--tta-cutout", "16"]
    given = ["--data", "here", "--batch-size", "8", "--mixup", "0.2", "--mixup-lambda", "shared", *tta]
    for script in ("cifar10_resnet44.sh", "imagenet_resnet50.sh"):
        finished = recipe(script, *given, "--out", tmp_path / script, SEQBA_VENV=str(stubs), PICTURES="60")
        assert finished.returncode == 0, finished.stderr
    assert [call["--mixup-lambda"] for call in calls(stubs, "seqba-train")] == ["shared"] * 2
    seen = [call for call in calls(stubs, "seqba-eval-image") if "--tta" in call]
    assert [(call["--tta-average"], call["--tta-cutout"]) for call in seen] == [("logits", "16")] * 2
    others = [call for call in calls(stubs, "seqba-eval-image") if "--tta" not in call]
    assert not any({"--tta-average", "--tta-cutout"} & set(call) for call in others)


def test_the_list_of_rows_is_that_of_the_header(recipe) -> None:
    listed = recipe("table2_images.sh", "--list")
    assert (listed.returncode, listed.stdout.split()) == (0, list(ROWS))
    described = recipe("table2_images.sh", "--help").stdout
    lines = re.findall(
        r"^ +([a-z0-9-]+-(?:cifar10|cifar100|imagenet)) +(\d+) .* (\d+) +(\d+)$", described, re.MULTILINE
    )
    assert {name: tuple(figures) for name, *figures in lines} == {
        row: (copies, batch, str(epochs)) for row, (_, copies, batch, epochs, *_) in ROWS.items()
    }


@pytest.mark.parametrize(
    ("script", "arguments", "program", "options"),
    [
        (["cifar10_resnet44.sh"], [], "cifar.py", {"--dataset": "cifar10"}),
        (["cifar10_resnet44.sh"], ["--from", "here"], "cifar.py", {"--dataset": "cifar10", "--from": "here"}),
        (["table2_images.sh", "vgg16-cifar100"], [], "cifar.py", {"--dataset": "cifar100"}),
        (["imagenet_resnet50.sh"], ["--from", "here"], "imagenet.py", {"--from": "here"}),
    ],
)
def test_pictures_are_prepared_where_none_lie_ready(
    recipe, stubs: Path, tmp_path: Path, script: list[str], arguments: list[str], program: str, options: dict[str, str]
) -> None:
    given = [*arguments, "--batch-size", "4", "--out", tmp_path / "out"]
    finished = recipe(*script, *given, SEQBA_VENV=str(stubs), PICTURES="60")
    assert finished.returncode == 0, finished.stderr
    made = str(tmp_path / "out" / "pictures")
    assert calls(stubs, program) == [options | {"--to": made}]
    assert [call["data"] for call in calls(stubs, "seqba-train")] == [made]


@pytest.mark.parametrize(
    ("arguments", "folder"),
    [
        (["cifar10_resnet44.sh"], "cifar10-resnet44"),
        (["cifar10_resnet44.sh", "--regime", "100"], "cifar10-resnet44"),
        (["cifar10_resnet44.sh", "--regime", "200", "--mixup", "0.2"], "cifar10-resnet44-200-epochs-mixup-0.2"),
        (["table2_images.sh", "vgg16-cifar10"], "vgg16-cifar10"),
        (["table2_images.sh", "densenet100-cifar100"], "densenet100-cifar100"),
        (["table2_images.sh", "densenet100-cifar100", "--settings", "released"], "densenet100-cifar100"),
        (["table2_images.sh", "densenet100-cifar100", "--settings", "usual"], "densenet100-cifar100-usual"),
        (
            ["cifar10_resnet44.sh", "--mixup", "0.2", "--mixup-lambda", "shared"],
            "cifar10-resnet44-mixup-0.2-shared",
        ),
    ],
)
def test_a_result_has_its_own_folder(stubs: Path, tmp_path: Path, arguments: list[str], folder: str) -> None:
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes", ignore=shutil.ignore_patterns("bench"))
    finished = subprocess.run(
        ["bash", tmp_path / "recipes" / arguments[0], *arguments[1:], "--data", "here"],
        env={**os.environ, "SEQBA_VENV": str(stubs), "PICTURES": "64"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    (trained,) = calls(stubs, "seqba-train")
    assert Path(trained["--save-dir"]).parent == tmp_path / "runs" / folder


@pytest.mark.parametrize(
    "script", [["cifar10_resnet44.sh"], ["imagenet_resnet50.sh"], ["table2_images.sh", "vgg16-cifar10"]]
)
@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--arm", "both"], "--arm is baseline, fixed-samples, ba, large-batch, fixed-rows or all, not 'both'"),
        (
            ["--arm", "fixed-rows", "--copies", "2,3", "--batch-size", "8"],
            "--arm fixed-rows sees 1/M of the examples, but --copies 3 doesn't divide --batch-size 8: give a multiple "
            "of it",
        ),
        (["--copies", "2,x"], "--copies takes a whole number from 1 on, not 'x'"),
        (["--copies", ""], "--copies takes a whole number from 1 on, not ''"),
        (["--epochs", "ten"], "--epochs takes a whole number from 1 on, not 'ten'"),
        (["--updates", "0"], "--updates takes a whole number from 1 on, not '0'"),
        (["--batch-size", "-2"], "--batch-size takes a whole number from 1 on, not '-2'"),
        (["--tta", "0"], "--tta takes a whole number from 1 on, not '0'"),
        (["--train-pictures", "1.5"], "--train-pictures takes a whole number from 1 on, not '1.5'"),
        (["--hold-out", "some"], "--hold-out takes a whole number from 1 on, not 'some'"),
        (["--mixup", "much"], "--mixup takes a number such as 0.2, not 'much'"),
        (["--mixup-lambda", "shared"], "--mixup-lambda belongs to --mixup, which isn't given"),
        (["--mixup", "1", "--mixup-lambda", "one"], "--mixup-lambda is per-copy or shared, not 'one'"),
        (["--tta-average", "logits"], "--tta-average and --tta-cutout belong to --tta, which isn't given"),
        (["--tta", "2", "--tta-average", "votes"], "--tta-average is probabilities or logits, not 'votes'"),
        (["--tta", "2", "--tta-cutout", "0"], "--tta-cutout takes a whole number from 1 on, not '0'"),
        (["--from", "here"], "--from and --data exclude each other: --data names pictures that lie ready"),
        (
            ["--train-pictures", "8", "--hold-out", "8"],
            "--train-pictures and --hold-out exclude each other: both say what is left out of training",
        ),
        (["--scale", "1e3"], "--scale takes a share of the run above 0 and up to 1 (0.01, say), not '1e3'"),
        (
            ["--scale", "0.1", "--updates", "3"],
            "--scale says how many pictures and updates there are: leave --updates, --train-pictures and --hold-out "
            "out",
        ),
    ],
)
def test_mistakes_are_one_line(recipe, tmp_path: Path, script: list[str], arguments: list[str], complaint: str) -> None:
    finished = recipe(*script, "--data", tmp_path, *arguments, "--out", tmp_path / "out")
    assert (finished.returncode, finished.stdout) == (2, "")
    assert finished.stderr == f"error: {complaint}\n"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("script", "complaint"),
    [
        (["cifar10_resnet44.sh", "--regime", "24"], "--regime is one of 200 100 23, not '24'"),
        (["imagenet_resnet50.sh", "--data", ".", "--regime", "full"], "--regime is one of 90 40 23, not 'full'"),
        (["table2_images.sh", "vgg16-cifar10", "--regime", ""], "--regime is one of 200, not ''"),
        (["imagenet_resnet50.sh"], "ImageNet is not for download without an account: --from DIR with its archives, or"),
        (["table2_images.sh", "alexnet-imagenet"], "ImageNet is not for download without an account: --from DIR with"),
        (["table2_images.sh", "alexnet-imagenet", "--settings", "all"], "--settings is released or usual, not 'all'"),
        (["cifar10_resnet44.sh", "--settings", "usual"], "--settings: those of cifar10-resnet44 and of the released"),
        (["table2_images.sh", "vgg16"], "there is no row 'vgg16'; bash "),
        (["table2_images.sh", "ROW"], "there is no row 'ROW'; bash "),
        (["table2_images.sh"], "which row? bash "),
    ],
)
def test_what_there_is_not_is_one_line(recipe, script: list[str], complaint: str) -> None:
    finished = recipe(*script)
    assert (finished.returncode, finished.stdout) == (2, "")
    assert finished.stderr.startswith(f"error: {complaint}")
    assert finished.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--train-pictures", "61"], "--train-pictures 61: here has only 60"),
        (["--train-pictures", "63"], "--train-pictures 63: here has only 60"),
        ([], "here has 60 pictures, 0 held out: not even one --batch-size of 64"),
        (
            ["--batch-size", "32", "--hold-out", "30"],
            "here has 60 pictures, 30 held out: not even one --batch-size of 32",
        ),
    ],
)
def test_too_few_pictures_are_one_line(
    recipe, stubs: Path, tmp_path: Path, arguments: list[str], complaint: str
) -> None:
    given = ["--data", "here", *arguments, "--out", tmp_path / "out"]
    finished = recipe("cifar10_resnet44.sh", *given, SEQBA_VENV=str(stubs), PICTURES="60")
    assert finished.returncode == 2
    assert finished.stderr == f"error: {complaint}\n"


def test_pictures_that_are_not_there_are_one_line(recipe, tmp_path: Path) -> None:
    finished = recipe("cifar10_resnet44.sh", "--data", tmp_path / "none", "--out", tmp_path / "out")
    assert finished.returncode == 2
    assert finished.stderr.startswith(f"error: there is no folder {tmp_path}/none with pictures")
    assert finished.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_an_archive_that_is_not_there_is_one_line(recipe, tmp_path: Path) -> None:
    finished = recipe("cifar10_resnet44.sh", "--from", tmp_path, "--out", tmp_path / "out")
    assert finished.returncode == 2
    assert "there is neither cifar-10-binary.tar.gz nor" in finished.stderr.splitlines()[-1]


def test_the_rate_of_large_batches_is_scaled_with_the_batch(recipe, stubs: Path, tmp_path: Path) -> None:
    given = ["--data", "here", "--batch-size", "1024", "--arm", "baseline", "--out", tmp_path / "out"]
    finished = recipe("table2_images.sh", "resnet50-large-imagenet", *given, SEQBA_VENV=str(stubs), PICTURES="4096")
    assert finished.returncode == 0, finished.stderr
    (trained,) = calls(stubs, "seqba-train")
    assert (trained["--lr"], trained["--warmup-updates"], trained["--arm"]) == ("0.4", "20", "baseline")


def test_the_grid_of_learning_rates_trains_ba_once_and_fixed_samples_for_each_factor(
    recipe, stubs: Path, tmp_path: Path
) -> None:
    given = ["--data", "here", "--copies", "3", "--epochs", "2", "--batch-size", "8", "--out", tmp_path / "out"]
    environment = {"SEQBA_VENV": str(stubs), "PICTURES": "60"}
    finished = recipe("lr_grid.sh", "cifar10_resnet44", *given, *TINY, **environment)
    assert finished.returncode == 0, finished.stderr
    trained = [(call["--arm"], call.get("--lr-factor"), call["--arch"]) for call in calls(stubs, "seqba-train")]
    powers = ["1", "M^0.25", "M^0.5", "M", "M^2"]
    assert trained == [("ba", None, "resnet8"), *(("fixed-samples", power, "resnet8") for power in powers)]
    lines = [line.split() for line in finished.stdout.splitlines()[-6:]]
    assert lines == [
        [("fixed-samples-3" if number else "ba-3"), power, "90.50", "90.25"]
        for number, power in enumerate(["1", *powers])
    ]


@pytest.mark.slow
def test_the_grid_of_learning_rates_on_toy_pictures(recipe, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    given = ["--data", pictures, "--copies", "2", "--updates", "2", "--batch-size", "8", "--train-pictures", "24"]
    finished = recipe("lr_grid.sh", "cifar10_resnet44", "--factors", "M^0.5,2", *given, "--out", out, *TINY)
    assert finished.returncode == 0, finished.stderr
    assert [line.split()[:2] for line in finished.stdout.splitlines()[-3:]] == [
        ["ba-2", "1"],
        ["fixed-samples-2", "M^0.5"],
        ["fixed-samples-2", "2"],
    ]
    state = read_checkpoint(out / "fixed-samples-M0.5" / "fixed-samples-2" / "checkpoint_last.pt")
    assert state["cfg"]["training"]["schedule"]["lr_factor"] == "M^0.5"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "which recipe? bash"),
        (["ptb"], "or table2_images ROW, not 'ptb'"),
        (["table2_images", "--copies"], "which row?"),
        (["cifar10_resnet44", "--arm", "ba"], "--arm: the arms here are fixed-samples, and ba"),
        (["cifar10_resnet44", "--factors", "1,x"], "--factors takes numbers and powers of M such as M^0.5, not 'x'"),
    ],
)
def test_a_wrong_grid_is_one_line(recipe, arguments: list[str], complaint: str) -> None:
    finished = recipe("lr_grid.sh", *arguments)
    assert finished.returncode == 2
    assert complaint in finished.stderr
    assert finished.stderr.count("\n") == 1
