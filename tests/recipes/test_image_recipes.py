from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from image_recipes import TINY, calls, table, write_coloured_folders

from seqba.checkpoints.file import read_checkpoint

ROOT = Path(__file__).resolve().parents[2]


RUNS = ["baseline", "fixed-samples-2", "ba-2"]


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
