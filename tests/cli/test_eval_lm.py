"""seqba-eval-lm: fairseq's lines and numbers; what it refuses."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from alphabet import LETTERS, write_alphabet
from modelling_world import write_language_model
from reversal import write_reversal
from torch.nn import functional
from translation_world import World

from seqba.checkpoints.model import load_model
from seqba.cli.command import run
from seqba.cli.eval_lm import UNSUPPORTED, main
from seqba.cli.generate import main as generate
from seqba.cli.interactive import main as interact
from seqba.data.monolingual import open_dictionary, open_monolingual
from seqba.tasks.text_options import BlockOptions


@pytest.fixture(scope="module")
def checkpoint(alphabet: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_language_model(tmp_path_factory.mktemp("lm") / "lm.pt", alphabet)


def evaluate(data: Path, checkpoint: Path | str, *flags: str) -> int:
    return run(main, [str(data), "--path", str(checkpoint), "--cpu", *flags])


def complaint(capsys: pytest.CaptureFixture[str], data: Path, checkpoint: Path | str, *flags: str) -> str:
    """The one line on stderr of a command that must fail with status 2."""
    assert evaluate(data, checkpoint, *flags) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    return captured.err


def last_numbers(capsys: pytest.CaptureFixture[str]) -> tuple[float, float]:
    match = re.fullmatch(r"Loss \(base 2\): ([\d.]+), Perplexity: ([\d.]+)", capsys.readouterr().out.splitlines()[-1])
    assert match is not None
    return float(match[1]), float(match[2])


def test_the_last_lines_are_fairseqs(alphabet: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(alphabet, checkpoint) == 0
    captured = capsys.readouterr()
    counted, loss = captured.out.splitlines()
    dictionary = open_dictionary(alphabet)
    text = open_monolingual(alphabet, "test", dictionary)
    assert re.fullmatch(rf"Evaluated {text.tokens} tokens in \d+\.\ds \(\d+\.\d\d tokens/s\)", counted)
    model = load_model(checkpoint).model
    ids = text.take(np.arange(text.tokens))
    total = 0.0
    for start in range(0, len(ids), 12):
        target = torch.from_numpy(ids[start : start + 12])
        previous = torch.tensor([[2, *ids[:-1].tolist()][start : start + 12]])
        with torch.no_grad():
            total += functional.cross_entropy(model(previous)[0], target, reduction="sum").item()
    bits = total / len(ids) / math.log(2)
    assert loss == f"Loss (base 2): {bits:.4f}, Perplexity: {2**bits:.2f}"
    assert captured.err == ""


def test_quiet_is_the_last_line_alone(alphabet: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(alphabet, checkpoint, "--quiet") == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("Loss (base 2): ")


@pytest.mark.parametrize("flags", [[], ["--sample-break-mode", "eos"], ["--context-window", "5"]])
def test_words_and_their_probabilities_add_up(
    flags: list[str], alphabet: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(alphabet, checkpoint, "--output-word-probs", *flags) == 0
    *lines, _, loss = capsys.readouterr().out.splitlines()
    dictionary = open_dictionary(alphabet)
    text = open_monolingual(alphabet, "test", dictionary)
    found = {}
    for line in lines:
        number, words = line.split(" ", 1)
        pairs = [re.fullmatch(r"(\S+) \[(-?\d+\.\d{6})\]", part) for part in words.split("\t")]
        found[int(number)] = [(pair[1], float(pair[2])) for pair in pairs if pair is not None]
        assert len(found[int(number)]) == len(pairs)
    words = [word for number in sorted(found) for word, _ in found[number]]
    assert words == [dictionary.symbols[token] for token in text.take(np.arange(text.tokens))]
    total = sum(score for pairs in found.values() for _, score in pairs)
    assert float(loss.split()[3].rstrip(",")) == pytest.approx(-total / len(words) / math.log(2), abs=1e-4)


def test_rows_are_cut_as_in_training_unless_told_otherwise(
    alphabet: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    blocks = BlockOptions(tokens_per_sample=20, sample_break_mode="eos", add_bos_token=True)
    checkpoint = write_language_model(tmp_path / "lm.pt", alphabet, blocks=blocks)
    numbers = {}
    for flags in ("", "--sample-break-mode eos", "--sample-break-mode none", "--tokens-per-sample 5", "--bf16"):
        assert evaluate(alphabet, checkpoint, *flags.split()) == 0
        numbers[flags] = last_numbers(capsys)
    assert numbers[""] == numbers["--sample-break-mode eos"] == numbers["--tokens-per-sample 5"]
    assert numbers[""] != numbers["--sample-break-mode none"]
    assert numbers[""][0] == pytest.approx(numbers["--bf16"][0], abs=0.05)


@pytest.mark.parametrize("flags", ["--max-tokens 12", "--batch-size 3", "--max-sentences 1"])
def test_batches_change_no_number(
    flags: str, alphabet: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate(alphabet, checkpoint)
    usual = last_numbers(capsys)
    evaluate(alphabet, checkpoint, *flags.split())
    assert last_numbers(capsys) == usual


def test_another_split(alphabet: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evaluate(alphabet, checkpoint, "--gen-subset", "train")
    assert capsys.readouterr().out.startswith(
        f"Evaluated {open_monolingual(alphabet, 'train', open_dictionary(alphabet)).tokens} "
    )


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--context-window", "12"], "--context-window 12 leaves nothing to score of --tokens-per-sample 12"),
        (["--tokens-per-sample", "13"], "makes rows of 13 tokens, and the model takes 12"),
        (["--max-tokens", "11"], "more than --max-tokens 11"),
        (["--gen-subset", "nowhere"], "has no split 'nowhere' (nowhere.idx); it has: test, train, valid"),
        (["--quiet", "--output-word-probs"], "exclude each other"),
        (["--sample-break-mode", "complete"], "invalid choice: 'complete'"),
        (["--context-window", "-1"], "--context-window is -1; it must be at least 0"),
        (["--task", "translation"], "invalid choice: 'translation'"),
        (["--beam", "4"], "unknown argument '--beam'"),
    ],
)
def test_mistakes_are_one_line(
    flags: list[str], message: str, alphabet: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in complaint(capsys, alphabet, checkpoint, *flags)


def test_a_path_is_needed_and_only_one(alphabet: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "names several checkpoints" in complaint(capsys, alphabet, f"{checkpoint}:{checkpoint}")
    assert "absent.pt does not exist" in complaint(capsys, alphabet, "absent.pt")
    assert run(main, [str(alphabet)]) == 2
    assert "--path is missing" in capsys.readouterr().err


def test_data_that_the_model_cannot_read_is_told(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "there is no data-bin" in complaint(capsys, tmp_path / "absent", checkpoint)
    pairs = write_reversal(tmp_path / "pairs")
    assert "holds sentence pairs (xx-yy), not the text" in complaint(capsys, pairs, checkpoint)
    other = write_alphabet(tmp_path / "other", letters=LETTERS[::-1])
    assert "was trained with another dictionary than that of" in complaint(capsys, other, checkpoint)
    empty = write_alphabet(tmp_path / "empty", splits={"train": 1, "test": 0})
    assert "holds no sentences" in complaint(capsys, empty, checkpoint)


def test_a_translation_checkpoint_is_told(
    alphabet: Path, token_world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    told = complaint(capsys, alphabet, token_world.checkpoint)
    assert "is not of a language modeling run; it is of translation: use seqba-generate" in told


@pytest.mark.parametrize("overrides", [[], ["--model-overrides", "{'max_source_positions': 9}"]])
def test_a_language_model_does_not_translate(
    overrides: list[str], alphabet: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in (generate, interact):
        assert run(command, [str(alphabet), "--path", str(checkpoint), "--cpu", *overrides]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.count("\n") == 1
        assert "is not of a translation run; it is of language_modeling: use seqba-eval-lm" in captured.err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task_state": {"task": "language_modeling"}}, "describes no model"),
        ({"task_state": {"task": "language_modeling", "vocabulary": 16}}, "another dictionary"),
        ({"blocks": None}, "doesn't say how its text was cut: 'blocks'"),
        ({"blocks": {"wings": 2}}, "doesn't say how its text was cut"),
        ({"blocks": {"tokens_per_sample": 0}}, "--tokens-per-sample is 0"),
        ({"blocks": {"sample_break_mode": "x"}}, "--sample-break-mode is 'x'"),
    ],
)
def test_a_damaged_checkpoint_is_one_line(
    changes: dict[str, Any], message: str, alphabet: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_language_model(tmp_path / "lm.pt", alphabet)
    if "blocks" in changes:
        state = torch.load(path, weights_only=True)
        state["cfg"]["task"] = {} if changes["blocks"] is None else {"blocks": changes["blocks"]}
        changes = {"cfg": state["cfg"]}
    write_language_model(path, alphabet, **changes)
    assert message in complaint(capsys, alphabet, path)


def test_weights_that_are_not_numbers_are_told(
    alphabet: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_language_model(tmp_path / "lm.pt", alphabet)
    weights = torch.load(path, weights_only=True)["model"]
    weights["layers.0.feed_forward.expand.bias"][:] = float("nan")
    write_language_model(path, alphabet, model=weights)
    assert "are not finite" in complaint(capsys, alphabet, path)


@pytest.mark.parametrize("flag", sorted(UNSUPPORTED))
def test_fairseqs_other_options_are_refused_by_name(
    flag: str, alphabet: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert f"{flag} is not an option here: " in complaint(capsys, alphabet, checkpoint, flag, "1")
