"""Rows of the paper's tables by recipes/image.sh: what each trains with, as published and as usual."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from image_recipes import TINY, calls, table, write_coloured_cifar, write_coloured_folders

from seqba.checkpoints.file import read_checkpoint
from seqba.data.cifar import CIFAR10, CIFAR100

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
