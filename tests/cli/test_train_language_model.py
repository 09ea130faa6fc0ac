"""seqba-train on a text: the same promises as for pairs of sentences, and the toy text is learned."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from alphabet import LETTERS, train_arguments, write_alphabet
from commands import weights
from reversal import train_arguments as translation_arguments
from reversal import write_reversal

from seqba.checkpoints.model import load_model
from seqba.cli.command import run
from seqba.cli.eval_lm import main as evaluate
from seqba.cli.train import main
from seqba.models.transformer_lm import TransformerLM
from seqba.training.folder import LAST

pytestmark = pytest.mark.usefixtures("one_thread")


def complaint(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert run(main, arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    return captured.err


def test_a_checkpoint_says_what_it_is(alphabet: Path, tmp_path: Path) -> None:
    assert main(train_arguments(alphabet, tmp_path, "--max-update", "3", "--add-bos-token")) == 0
    loaded = load_model(tmp_path / LAST, task="language_modeling")
    assert isinstance(loaded.model, TransformerLM)
    assert loaded.model.max_target_positions == 25
    assert set(loaded.cfg["task"]) == {"name", "data", "blocks", "batches", "criterion"}
    assert loaded.cfg["task"]["name"] == "language_modeling"
    assert loaded.cfg["task"]["blocks"] == {
        "tokens_per_sample": 24,
        "sample_break_mode": "none",
        "add_bos_token": True,
    }
    assert loaded.cfg["model"]["arch"] == "transformer_lm"
    assert set(loaded.task_state) == {"task", "vocabulary", "dictionary_sha256"}
    assert json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))["parameters"] == sum(
        parameter.numel() for parameter in loaded.model.parameters()
    )


@pytest.mark.parametrize("more", [[], ["--sample-break-mode", "eos", "--add-bos-token", "--plan", "looped"]])
def test_going_on_equals_never_having_stopped(more: list[str], alphabet: Path, tmp_path: Path) -> None:
    for name, updates in (("straight", 14), ("twice", 6), ("twice", 14)):
        assert main(train_arguments(alphabet, tmp_path / name, "--max-update", str(updates), *more)) == 0
    one, other = weights(tmp_path / "straight" / LAST), weights(tmp_path / "twice" / LAST)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_plans_train_the_same_model(alphabet: Path, tmp_path: Path) -> None:
    for plan in ("stacked", "looped"):
        # Adam's usual eps would blow the rounding errors of gradients that are zero up to whole steps.
        more = ["--max-update", "8", "--plan", plan, "--adam-eps", "1e-3"]
        assert main(train_arguments(alphabet, tmp_path / plan, *more)) == 0
    one, other = weights(tmp_path / "stacked" / LAST), weights(tmp_path / "looped" / LAST)
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (["--tokens-per-sample", "12", "--max-target-positions", "24"], "--tokens-per-sample 12 (it had 24)"),
        (["--sample-break-mode", "eos"], "--sample-break-mode eos (it had none)"),
        (["--decoder-layers", "2"], "--decoder-layers 2 (it had 1)"),
    ],
)
def test_other_blocks_in_the_same_folder_are_refused(
    more: list[str], named: str, alphabet: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = train_arguments(alphabet, tmp_path, "--max-update", "2")
    main(arguments)
    capsys.readouterr()
    assert named in complaint([*arguments, *more], capsys)


def test_data_of_the_other_task_is_told(alphabet: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pairs = write_reversal(tmp_path / "pairs")
    told = complaint(train_arguments(pairs, tmp_path / "run"), capsys)
    assert "holds sentence pairs (xx-yy), not the text of a language model: take --task translation, or make" in told
    told = complaint(translation_arguments(alphabet, tmp_path / "run"), capsys)
    assert "holds no parallel corpus but the text of a language model: take --task language_modeling" in told
    assert not (tmp_path / "run").exists()


def test_another_dictionary_or_task_in_the_same_folder_is_refused(
    alphabet: Path, reversal: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(train_arguments(alphabet, tmp_path / "run", "--max-update", "1"))
    capsys.readouterr()
    other = write_alphabet(tmp_path / "other", letters=LETTERS[::-1])
    told = complaint(train_arguments(other, tmp_path / "run", "--max-update", "2"), capsys)
    assert "was trained on other data (dictionary_sha256 differ)" in told
    told = complaint(translation_arguments(reversal, tmp_path / "run", "--max-update", "2"), capsys)
    assert "is of --task language_modeling, and this run of --task translation" in told


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            ["--tokens-per-sample", "200"],
            "--tokens-per-sample 200 makes rows of 200 tokens, more than --max-tokens 192",
        ),
        (["--max-target-positions", "8"], "more than --max-target-positions 8"),
        (["--valid-subset", "nowhere"], "has no split 'nowhere'"),
        (["--decoder-attention-heads", "3"], "the width 16 isn't a multiple of the 3"),
        (["--sample-break-mode", "complete"], "invalid choice: 'complete'"),
    ],
)
def test_mistakes_are_one_line(
    more: list[str], message: str, alphabet: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in complaint([*train_arguments(alphabet, tmp_path / "run"), *more], capsys)


@pytest.mark.slow
def test_the_toy_text_is_learned_and_both_commands_agree(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_alphabet(tmp_path / "data", splits={"train": 3000, "valid": 300})
    schedule = ["--lr-scheduler", "inverse_sqrt", "--warmup-updates", "50"]
    more = ["--max-update", "400", "--max-tokens", "480", "--validate-interval", "99", "--decoder-layers", "2"]
    assert main([*train_arguments(data, tmp_path / "run"), *more, *schedule]) == 0
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    # Per line: which of 12 letters begins, and after the third of 3 to 9 letters whether it ends; 7 tokens on average.
    least = math.exp((math.log(12) + math.log(7)) / 7)
    assert least <= last["ppl"] * 1.02
    assert last["ppl"] < 1.15 * least
    arguments = [str(data), "--path", str(tmp_path / "run" / LAST), "--gen-subset", "valid", "--cpu", "--quiet"]
    assert evaluate(arguments) == 0
    assert float(capsys.readouterr().out.split()[-1]) == pytest.approx(last["ppl"], abs=0.01)
