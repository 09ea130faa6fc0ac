from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from preloaded import preloaded
from stub_programs import NOTE, noted_calls, write_programs

from seqba.checkpoints.file import read_checkpoint
from seqba.data.dictionary import Dictionary
from seqba.data.indexed import IndexedCorpus

LINES = {"train": 60, "valid": 12, "test": 12}  # of 8 tokens each, the line's end included
BATCH_SIZES = {"ptb.sh": 20, "wikitext2.sh": 80}
ARMS = ["baseline", "fixed-samples", "ba"]
TINY = ["--decoder-layers", "2", "--decoder-embed-dim", "8", "--decoder-hidden-size", "12"]
ANSWER = """
if name == "seqba-eval-lm":
    print("Loss (base 2): 5.8780, Perplexity:", "61.2" if "valid" in arguments else "58.8")
"""


@pytest.fixture
def folder(toy_text: Path, write_words) -> Path:
    for split, count in LINES.items():
        write_words(toy_text / f"ptb.{split}.txt", count)
    return toy_text


@pytest.fixture
def stubs(tmp_path: Path) -> Path:
    """An environment whose seqba-train and seqba-eval-lm only write down how they were called."""
    lines = {
        "python": f'exec {preloaded().python} "$@"',
        "seqba-preprocess": f'exec {preloaded().python} -c "from seqba.cli.preprocess import entry; entry()" "$@"',
        **dict.fromkeys(("seqba-train", "seqba-eval-lm"), NOTE),
    }
    return write_programs(tmp_path / "venv", lines, ANSWER)


def calls(stubs: Path, command: str) -> list[dict[str, str]]:
    """The options of every call of a command, the last of each name."""
    return [dict(zip(call[1::2], call[2::2], strict=True)) for call in noted_calls(stubs, command)]


@pytest.mark.slow
def test_three_arms_from_words_to_perplexities(recipe, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ["--from", folder, "--arm", "all", "--copies", "2", "--updates", "4", "--batch-size", "2"]
    finished = recipe("ptb.sh", *arguments, "--out", out, "--", *TINY)
    assert finished.returncode == 0, finished.stderr
    table = [line.split() for line in finished.stdout.splitlines()[-4:]]
    assert table[0] == ["perplexity", "valid", "test"]
    assert [row[0] for row in table[1:]] == ARMS
    assert all(1 < float(figure) < math.inf for row in table[1:] for figure in row[1:])
    for arm in ARMS:
        last = read_checkpoint(out / arm / "checkpoint_last.pt")
        assert last["cfg"]["training"]["grid"]["arm"] == arm
        assert last["optimizer_history"][-1]["num_updates"] == 4
    arguments[arguments.index("all")] = "ba"
    again = recipe("ptb.sh", *arguments, "--out", out, "--", *TINY)
    assert again.returncode == 0, again.stderr
    assert again.stdout.splitlines()[-1].split() == table[ARMS.index("ba") + 1]


def test_every_arm_makes_the_same_updates_and_validations(recipe, folder: Path, stubs: Path, tmp_path: Path) -> None:
    arguments = ["--from", folder, "--arm", "all", "--copies", "3", "--epochs", "7", "--batch-size", "2"]
    finished = recipe("ptb.sh", *arguments, "--out", tmp_path / "out", "--", *TINY, SEQBA_VENV=str(stubs))
    assert finished.returncode == 0, finished.stderr
    trained = calls(stubs, "seqba-train")
    assert [call["--arm"] for call in trained] == ARMS
    for call in trained:  # 480 tokens / (2 streams · 67.75 tokens) = 3.54 → 4
        assert (call["--validate-interval-updates"], call["--max-update"]) == ("4", "28")
        assert call["--save-interval-updates"] == "4"
        assert (call["--copies"], call["--batch-size"], call["--seed"]) == ("3", "2", "141")
        assert call["--decoder-hidden-size"] == "12"
    splits = [(Path(call["--path"]).parent.name, call["--gen-subset"]) for call in calls(stubs, "seqba-eval-lm")]
    assert splits == [(arm, split) for arm in ARMS for split in ("valid", "test")]
    assert [line.split() for line in finished.stdout.splitlines()[-4:]] == [
        ["perplexity", "valid", "test"],
        *([arm, "61.2", "58.8"] for arm in ARMS),
    ]


@pytest.mark.parametrize(("size", "width", "updates"), [("paper", "1150", "500"), ("small", "300", "10")])
def test_sizes(recipe, folder: Path, stubs: Path, tmp_path: Path, size: str, width: str, updates: str) -> None:
    finished = recipe("ptb.sh", "--from", folder, "--size", size, "--out", tmp_path / "out", SEQBA_VENV=str(stubs))
    assert finished.returncode == 0, finished.stderr
    (trained,) = calls(stubs, "seqba-train")
    assert trained["--decoder-hidden-size"] == width
    assert trained["--max-update"] == updates  # a text as short as this is one update of 20 streams
    assert (trained["--arm"], trained["--copies"]) == ("ba", "10")


def test_a_shortened_run(recipe, folder: Path, stubs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    given = ["--from", folder, "--batch-size", "1", "--copies", "2", "--scale", "0.01", "--out", out]
    finished = recipe("ptb.sh", *given, SEQBA_VENV=str(stubs))
    assert finished.returncode == 0, finished.stderr
    # A tenth of 60 lines are 48 tokens, and an update; a tenth of 500 epochs.
    assert [call["--max-update"] for call in calls(stubs, "seqba-train")] == ["50"]
    assert IndexedCorpus(out / "data-bin-6" / "train").sizes.sum() == 48
    whole, short = (Dictionary.load(out / name / "dict.txt") for name in ("data-bin", "data-bin-6"))
    assert len(whole) == len(short)


@pytest.mark.slow
@pytest.mark.parametrize(("arm", "batch_size", "copies"), [("large-batch", 4, 1), ("fixed-rows", 1, 2)])
def test_the_further_arms(recipe, folder: Path, tmp_path: Path, arm: str, batch_size: int, copies: int) -> None:
    out = tmp_path / "out"
    arguments = ["--from", folder, "--arm", arm, "--copies", "2", "--updates", "2", "--batch-size", "2"]
    finished = recipe("ptb.sh", *arguments, "--size", "small", "--out", out, "--", *TINY)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.splitlines()[-1].split()[0] == arm
    resolved = json.loads((out / arm / "run.json").read_text(encoding="utf-8"))
    assert (resolved["micro_batch"]["batch_size"], resolved["copies"]) == (batch_size, copies)


@pytest.mark.parametrize("name", ["ptb.sh", "wikitext2.sh"])
@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--arm", "both"], "--arm is baseline, fixed-samples, ba, large-batch, fixed-rows or all, not 'both'"),
        (
            ["--arm", "fixed-rows", "--copies", "3"],
            "--arm fixed-rows sees 1/M of the examples, but --copies 3 doesn't divide --batch-size "
            "{batch_size}: give a multiple of it",
        ),
        (["--size", "tiny"], "--size is paper or small, not 'tiny'"),
        (["--epochs", "ten"], "--epochs takes a whole number from 1 on, not 'ten'"),
        (["--scale", "0.0"], "--scale takes a share of the run above 0 and up to 1 (0.01, say), not '0.0'"),
        (["--scale", "1", "--updates", "9"], "--scale says how many updates there are: leave --updates out"),
        (["--updates", "0"], "--updates takes a whole number from 1 on, not '0'"),
        (["--batch-size", "-2"], "--batch-size takes a whole number from 1 on, not '-2'"),
        (["--copies", "1.5"], "--copies takes a whole number from 1 on, not '1.5'"),
    ],
)
def test_mistakes_are_one_line(recipe, tmp_path: Path, name: str, arguments: list[str], complaint: str) -> None:
    finished = recipe(name, *arguments, "--out", tmp_path / "out")
    assert (finished.returncode, finished.stdout) == (2, "")
    assert finished.stderr == f"error: {complaint.format(batch_size=BATCH_SIZES[name])}\n"
    assert not (tmp_path / "out").exists()


def test_text_that_is_not_there_is_one_line(recipe, tmp_path: Path) -> None:
    finished = recipe("ptb.sh", "--from", tmp_path, "--out", tmp_path / "out")
    assert finished.returncode == 2
    assert "neither ptb.train.txt nor ptb.train.txt.gz nor train.txt" in finished.stderr.splitlines()[-1]
