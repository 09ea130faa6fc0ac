"""Every command that takes a checkpoint takes fairseq's, with the same outcome as from the same weights of ours."""

from __future__ import annotations

import io
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from modelling_world import write_language_model
from reversal import SMALL_MODEL, train_arguments
from torch import Tensor
from translation_world import World

from seqba.checkpoints.file import read_checkpoint
from seqba.checkpoints.model import load_model
from seqba.checkpoints.to_fairseq import fairseq_weights
from seqba.cli.average_checkpoints import main as average
from seqba.cli.command import run
from seqba.cli.eval_lm import main as evaluate
from seqba.cli.generate import main as generate
from seqba.cli.interactive import main as interact
from seqba.cli.train import main as train
from seqba.models.transformer import Transformer
from seqba.models.transformer_lm import TransformerLM
from seqba.training.folder import LAST


def fairseq_copy(ours: Path, theirs: Path, **options: Any) -> Path:
    """fairseq's file of a checkpoint's model, of the form with `args`, which say no languages but those given."""
    loaded = load_model(ours)
    assert isinstance(loaded.model, Transformer | TransformerLM)
    args = {"arch": "transformer", **loaded.cfg["model"]["options"], **options}
    torch.save(
        {
            "args": Namespace(**args),
            "model": fairseq_weights(loaded.model),
            "optimizer_history": [{"num_updates": loaded.updates}],
            "extra_state": {"train_iterator": {"epoch": 1}},
        },
        theirs,
    )
    return theirs


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("languages", [{}, {"source_lang": "en", "target_lang": "de"}])
def test_generate_translates_with_it(
    languages: dict[str, str], plain_world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = fairseq_copy(plain_world.checkpoint, tmp_path / "fairseq.pt", **languages)
    outcomes = []
    for path in (plain_world.checkpoint, theirs):
        assert run(generate, [str(plain_world.data), "--path", str(path), "--cpu", "--max-len-b", "5"]) == 0
        outcomes.append(lines(capsys))
    assert outcomes[0] == outcomes[1]


def test_interactive_translates_with_it(
    plain_world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = fairseq_copy(plain_world.checkpoint, tmp_path / "fairseq.pt")
    outcomes = []
    for path in (plain_world.checkpoint, theirs):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"One two.\n")))
        assert run(interact, [str(plain_world.data), "--path", str(path), "--cpu", "--max-len-b", "5"]) == 0
        outcomes.append([line for line in lines(capsys) if line[:2] in ("S-", "H-", "D-", "P-")])
    assert len(outcomes[0]) == 4
    assert outcomes[0] == outcomes[1]


def test_a_dictionary_of_another_size_is_refused(
    plain_world: World, reversal: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = fairseq_copy(plain_world.checkpoint, tmp_path / "fairseq.pt")
    assert run(generate, [str(reversal), "--path", str(theirs), "--cpu"]) == 2
    assert "was trained with another dictionary" in capsys.readouterr().err


def test_a_language_model_is_evaluated(alphabet: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ours = write_language_model(tmp_path / "ours.pt", alphabet)
    theirs = fairseq_copy(ours, tmp_path / "fairseq.pt", arch="transformer_lm", tokens_per_sample=12)
    outcomes = []
    for path in (ours, theirs):
        assert run(evaluate, [str(alphabet), "--path", str(path), "--cpu"]) == 0
        outcomes.append(lines(capsys)[-1])
    assert outcomes[0] == outcomes[1]


@pytest.fixture
def command(reversal: Path, tmp_path: Path) -> Callable[..., list[str]]:
    return lambda folder, *more: train_arguments(reversal, tmp_path / folder, "--max-update", "1", *more)


def test_a_run_begins_from_it_and_does_not_go_on_from_it(
    command: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(train, command("ours")) == 0
    theirs = fairseq_copy(tmp_path / "ours" / LAST, tmp_path / "fairseq.pt")
    for name, path in (("a", tmp_path / "ours" / LAST), ("b", theirs)):
        assert run(train, command(name, "--finetune-from-model", str(path))) == 0
    weights: list[dict[str, Tensor]] = [read_checkpoint(tmp_path / name / LAST)["model"] for name in "ab"]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    capsys.readouterr()
    assert run(train, command("c", "--restore-file", str(theirs))) == 2
    assert f"begin a new run from its weights with --finetune-from-model {theirs}" in capsys.readouterr().err


def test_without_an_architecture_a_fine_tuning_takes_the_models(
    command: Callable[..., list[str]], reversal: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(train, command("ours")) == 0
    theirs = fairseq_copy(tmp_path / "ours" / LAST, tmp_path / "fairseq.pt")
    named = command("a", "--finetune-from-model", str(theirs))
    first = named.index("--arch")
    unnamed = [
        *named[:first],
        "--dropout",
        "0.1",
        *named[first + len(SMALL_MODEL) :],
        "--save-dir",
        str(tmp_path / "b"),
    ]
    assert run(train, named) == run(train, unnamed) == 0
    weights: list[dict[str, Tensor]] = [read_checkpoint(tmp_path / name / LAST)["model"] for name in "ab"]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    capsys.readouterr()
    assert run(train, [*unnamed, "--encoder-layers", "2", "--save-dir", str(tmp_path / "c")]) == 2
    assert "can't go on with --encoder-layers 2 (it had 1)" in capsys.readouterr().err


def test_it_is_averaged(plain_world: World, tmp_path: Path) -> None:
    theirs = fairseq_copy(plain_world.checkpoint, tmp_path / "fairseq.pt")
    assert run(average, ["--inputs", str(theirs), str(theirs), "--output", str(tmp_path / "mean.pt")]) == 0
    ours, mean = (load_model(path).model.state_dict() for path in (plain_world.checkpoint, tmp_path / "mean.pt"))
    assert all(torch.equal(ours[name], mean[name]) for name in ours)
