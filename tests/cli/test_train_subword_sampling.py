"""seqba-train --subword-sampling: the same update in every plan and on any ranks, resumed runs, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import last_complaint, weights
from reversal import SMALL_MODEL
from syllables import write_syllables

from seqba.cli.command import run
from seqba.cli.measure import main as measure
from seqba.cli.preprocess import main as preprocess
from seqba.cli.train import main
from seqba.training.folder import LAST

OPTIONS = [
    *(*SMALL_MODEL, "--attention-dropout", "0.1", "--activation-dropout", "0.1", "--activation-fn", "gelu"),
    *("--max-tokens", "160", "--copies", "3", "--update-freq", "2"),
    *("--optimizer", "sgd", "--lr", "0.05", "--momentum", "0.9", "--disable-validation"),
    *("--cpu", "--log-format", "none", "--log-interval", "1", "--no-epoch-checkpoints"),
]
SAMPLING = ["--subword-sampling", "0.3"]

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_syllables(tmp_path_factory.mktemp("syllables"))


def train(data: Path, folder: Path, updates: int, *more: str) -> None:
    arguments = [str(data), "--save-dir", str(folder), "--max-update", str(updates)]
    assert run(main, [*arguments, *OPTIONS, *SAMPLING, *more]) == 0


def lines(folder: Path) -> list[dict[str, Any]]:
    read = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [line for line in read if line["event"] == "train"]


def test_the_weights_do_not_depend_on_the_plan(data: Path, tmp_path: Path) -> None:
    for plan in ("stacked", "looped", "2"):
        train(data, tmp_path / plan, 3, "--plan", plan)
    stacked = weights(tmp_path / "stacked" / LAST)
    for plan in ("looped", "2"):
        other = weights(tmp_path / plan / LAST)
        for parameter in stacked:
            torch.testing.assert_close(other[parameter], stacked[parameter], rtol=1e-4, atol=1e-6, msg=parameter)
    train(data, tmp_path / "plain", 3, "--subword-sampling", "0")
    plain = weights(tmp_path / "plain" / LAST)
    assert any(not torch.allclose(plain[name], stacked[name], atol=1e-3) for name in plain)


def test_copies_have_different_numbers_of_tokens_and_the_log_counts_them(data: Path, tmp_path: Path) -> None:
    train(data, tmp_path / "sampled", 2)
    train(data, tmp_path / "plain", 2, "--subword-sampling", "0")
    (sampled, _), (plain, _) = lines(tmp_path / "sampled"), lines(tmp_path / "plain")
    assert plain["processed_tokens"] == 3 * plain["unique_tokens"]
    assert sampled["processed_tokens"] != 3 * sampled["unique_tokens"]
    assert sampled["processed_tokens"] > 1.1 * plain["processed_tokens"]


@pytest.mark.parametrize("plan", ["stacked", "looped"])
def test_going_on_equals_never_having_stopped(plan: str, data: Path, tmp_path: Path) -> None:
    for folder, updates in (("straight", 4), ("twice", 2), ("twice", 4)):
        train(data, tmp_path / folder, updates, "--plan", plan)
    one, other = weights(tmp_path / "straight" / LAST), weights(tmp_path / "twice" / LAST)
    for parameter in one:
        assert torch.equal(one[parameter], other[parameter]), parameter


@pytest.mark.parametrize("arm", ["baseline", "fixed-samples", "fixed-rows"])
def test_every_arm_cuts_words_anew(arm: str, data: Path, tmp_path: Path) -> None:
    more = ["--arm", arm, *(["--update-freq", "3"] if arm == "fixed-rows" else [])]
    train(data, tmp_path / "sampled", 1, *more)
    train(data, tmp_path / "plain", 1, *more, "--subword-sampling", "0")
    (sampled,), (plain,) = lines(tmp_path / "sampled"), lines(tmp_path / "plain")
    assert sampled["unique_tokens"] > plain["unique_tokens"]


@pytest.mark.filterwarnings("ignore:nothing drew noise")
def test_the_variance_is_measured_with_it(data: Path, tmp_path: Path) -> None:
    noiseless = ["--dropout", "0", "--attention-dropout", "0", "--activation-dropout", "0", "--measure-every", "1"]
    train(data, tmp_path / "sampled", 1, *noiseless)
    train(data, tmp_path / "plain", 1, *noiseless, "--subword-sampling", "0")
    (sampled,), (plain,) = lines(tmp_path / "sampled"), lines(tmp_path / "plain")
    assert sampled["variance_noise"] > 1e-3
    assert abs(plain["variance_noise"]) < 1e-6


def test_a_data_bin_of_sentencepiece_is_cut_by_its_own_model(tmp_path: Path) -> None:
    text = ["one two three four", "five six seven", "twenty one", "the hundred and first"] * 10
    for language in ("en", "de"):
        (tmp_path / f"train.{language}").write_text("\n".join(text) + "\n")
    prefix = str(tmp_path / "train")
    arguments = ["-s", "en", "-t", "de", "--trainpref", prefix, "--validpref", prefix, "--sentencepiece", "30"]
    assert run(preprocess, [*arguments, "--joined-dictionary", "--destdir", str(tmp_path / "bin")]) == 0
    train(tmp_path / "bin", tmp_path / "run", 2)
    assert lines(tmp_path / "run")[0]["processed_tokens"] != 3 * lines(tmp_path / "run")[0]["unique_tokens"]


def test_what_is_measured_has_the_data_bins_subwords_and_that_is_said(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(data, tmp_path, 1)
    measured = [str(data), "--path", str(tmp_path / LAST), "--cpu", "--quiet", "--examples", "2", "--pairs", "2"]
    assert run(measure, measured) == 0
    assert "was trained with --subword-sampling: examples have the subwords of" in capsys.readouterr().err


def test_another_probability_is_another_run(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(data, tmp_path, 1)
    status = run(main, [str(data), "--save-dir", str(tmp_path), *OPTIONS, "--max-update", "2"])
    assert "--subword-sampling 0.0 (it had 0.3)" in last_complaint(capsys, status)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--fork", "encoder"], "--fork has them begin inside the model: leave one out"),
        (
            ["--criterion", "label_smoothed_cross_entropy_with_rdrop", "--rdrop-alpha", "5", "--plan", "stacked"],
            "--rdrop-alpha compares them token by token: leave one out",
        ),
        (["--subword-sampling", "1"], "--subword-sampling is 1; it must be less than 1"),
        (
            ["--task", "language_modeling", "--arch", "transformer_lm"],
            "--subword-sampling belongs to --task translation",
        ),
    ],
)
def test_what_does_not_fit_is_refused(
    more: list[str], words: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = ["--arch", "transformer_tiny", "--copies", "2", "--max-tokens", "160", "--lr", "0.1"]
    status = run(main, [str(data), "--save-dir", str(tmp_path), *plain, *SAMPLING, *more])
    assert words in last_complaint(capsys, status)


def test_a_data_bin_without_merges_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_syllables(tmp_path / "bin", codes=False)
    status = run(main, [str(folder), "--save-dir", str(tmp_path), *OPTIONS, *SAMPLING])
    assert "holds neither sentencepiece.model" in last_complaint(capsys, status)
