from __future__ import annotations

import json
from pathlib import Path

import pytest

from seqba.checkpoints.file import read_checkpoint

SPLITS = {"train": 160, "val": 16, "test_2016_flickr": 16}


@pytest.fixture
def folder(toy_text: Path, write_pairs) -> Path:
    for split, count in SPLITS.items():
        write_pairs(toy_text / f"{split}.en", toy_text / f"{split}.de", count)
    return toy_text


@pytest.mark.slow
def test_three_arms_from_raw_text_to_bleu(recipe, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ["--from", folder, "--arm", "all", "--copies", "2", "--updates", "3", "--max-tokens", "400"]
    finished = recipe("multi30k.sh", *arguments, "--vocab", "120", "--out", out)
    assert finished.returncode == 0, finished.stderr
    arms = [line.split()[0] for line in finished.stdout.splitlines()[-3:]]
    assert arms == ["baseline", "fixed-samples", "ba"]
    assert all("BLEU" in line for line in finished.stdout.splitlines()[-3:])
    copies = {arm: read_checkpoint(out / arm / "checkpoint_last.pt")["cfg"]["training"]["grid"] for arm in arms}
    assert [copies[arm]["arm"] for arm in arms] == arms


def test_a_wrong_arm_is_one_line(recipe) -> None:
    finished = recipe("multi30k.sh", "--arm", "both")
    assert finished.returncode == 2
    assert (
        finished.stderr == "error: --arm is baseline, fixed-samples, ba, large-batch, fixed-rows or all, not 'both'\n"
    )


@pytest.mark.parametrize("option", ["--copies", "--updates", "--max-tokens", "--vocab"])
def test_a_number_that_is_none_is_one_line(recipe, option: str) -> None:
    finished = recipe("multi30k.sh", option, "many")
    assert (finished.returncode, finished.stderr) == (
        2,
        f"error: {option} takes a whole number from 1 on, not 'many'\n",
    )


@pytest.mark.slow
def test_the_arm_of_fixed_rows_is_one_run(recipe, folder: Path, tmp_path: Path) -> None:
    arguments = ["--from", folder, "--arm", "fixed-rows", "--copies", "2", "--updates", "2", "--max-tokens", "400"]
    finished = recipe("multi30k.sh", *arguments, "--size", "tiny", "--vocab", "120", "--out", tmp_path / "out")
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.splitlines()[-1].split()[0] == "fixed-rows"
    resolved = json.loads((tmp_path / "out" / "fixed-rows" / "run.json").read_text(encoding="utf-8"))
    assert (resolved["micro_batch"]["max_tokens"], resolved["copies"]) == (200, 2)


@pytest.mark.parametrize("script", ["multi30k.sh", "wmt16_en_de.sh"])
@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--arm", "large-batch"], "a Transformer's share nothing: take --arm fixed-samples, which is the same there"),
        (["--arm", "fixed-rows", "--copies", "3"], "--max-tokens 4096: give a multiple of it"),
    ],
)
def test_an_arm_that_cannot_be_is_one_line_before_any_work(
    recipe, tmp_path: Path, script: str, arguments: list[str], complaint: str
) -> None:
    finished = recipe(script, *arguments, "--out", tmp_path / "out")
    assert finished.returncode == 2
    assert complaint in finished.stderr
    assert finished.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_text_that_is_not_there_is_one_line(recipe, tmp_path: Path) -> None:
    finished = recipe("multi30k.sh", "--from", tmp_path, "--out", tmp_path / "out")
    assert finished.returncode == 2
    assert "neither train.en nor train.en.gz is there" in finished.stderr.splitlines()[-1]
