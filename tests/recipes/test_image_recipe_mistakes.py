"""Recipes on pictures: mistakes, and what isn't there, are one line."""

from __future__ import annotations

from pathlib import Path

import pytest


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
