"""`seqba-train --compile`: the run of uncompiled layers to rounding, which goes on either way."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from reversal import train_arguments
from torch import fx

from seqba.cli.command import run
from seqba.cli.train import main
from seqba.models import graphs

LAST = "checkpoint_last.pt"
OPTIONS = ["--optimizer", "sgd", "--store-ema", "--ema-decay", "0.5", "--attention-dropout", "0.1"]

pytestmark = pytest.mark.filterwarnings("ignore")  # torch.compile warns of its own tracing


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[fx.GraphModule]:
    """The graphs of a test, by a backend that runs them as they are."""
    made: list[fx.GraphModule] = []

    def keep(graph: fx.GraphModule, _: Any) -> Callable[..., Any]:
        made.append(graph)
        return graph.forward

    monkeypatch.setattr(graphs, "BACKEND", keep)
    graphs._compiled.cache_clear()
    torch._dynamo.reset()
    return made


def weights(folder: Path) -> dict[str, torch.Tensor]:
    loaded = torch.load(folder / LAST, weights_only=True)
    return {**loaded["model"], **{f"raw {name}": value for name, value in loaded.get("raw_model", {}).items()}}


def test_a_run_goes_on_with_and_without(
    reversal: Path, tmp_path: Path, compiled: list[fx.GraphModule], caplog: pytest.LogCaptureFixture
) -> None:
    def train(folder: str, updates: int, *more: str) -> None:
        arguments = train_arguments(reversal, tmp_path / folder, *OPTIONS, "--max-update", str(updates), *more)
        assert main(arguments) == 0

    train("plain", 6)
    assert not compiled
    train("compiled", 6, "--compile")
    assert 2 <= len(compiled) <= 4  # of layers of two kinds, and of batches without padding
    with caplog.at_level(logging.INFO, logger="seqba.training.precision"):
        train("narrow", 1, "--compile", "--fp16")
    assert caplog.text.count("--fp16 is bfloat16 on a CPU") == 1
    train("first", 3, "--compile")
    train("first", 6)
    assert "--compile False (it had True)" in caplog.text
    train("then", 3)
    train("then", 6, "--compile")
    assert "--compile True (it had False)" in caplog.text
    expected = weights(tmp_path / "plain")
    for folder in ("compiled", "first", "then"):
        found = weights(tmp_path / folder)
        assert list(found) == list(expected)
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-6, msg=f"{folder} {name}")


def test_a_machine_that_cant_compile_is_told_of_at_the_start(
    reversal: Path,
    tmp_path: Path,
    compiled: list[fx.GraphModule],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise RuntimeError("\nNo working C++ compiler found\nand more of it")

    monkeypatch.setattr(torch, "compile", refuse)
    assert run(main, train_arguments(reversal, tmp_path, "--compile")) == 2
    assert capsys.readouterr().err == (
        "error: --compile: torch can't compile for this machine's cpu: No working C++ compiler found\n"
    )
    assert not compiled


def test_a_mistake_in_the_checkpoint_is_told_before_anything_is_compiled(
    reversal: Path, tmp_path: Path, compiled: list[fx.GraphModule], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(train_arguments(reversal, tmp_path, "--optimizer", "adam", "--max-update", "1")) == 0
    loaded = torch.load(tmp_path / LAST, weights_only=True)
    name, weight = next(iter(loaded["model"].items()))
    loaded["model"][name] = weight[:-1].clone()
    torch.save(loaded, tmp_path / "other.pt")
    capsys.readouterr()
    other = ["--finetune-from-model", str(tmp_path / "other.pt"), "--compile"]
    assert run(main, train_arguments(reversal, tmp_path / "new", *other)) == 2
    assert name in capsys.readouterr().err
    assert not compiled


def test_copies_may_begin_inside_compiled_layers(
    reversal: Path, tmp_path: Path, compiled: list[fx.GraphModule]
) -> None:
    options = [*OPTIONS, "--max-update", "2", "--fork", "encoder", "--checkpoint-activations"]
    assert main(train_arguments(reversal, tmp_path / "plain", *options)) == 0
    assert not compiled
    assert main(train_arguments(reversal, tmp_path / "compiled", *options, "--compile")) == 0
    assert compiled
    found = weights(tmp_path / "compiled")
    for name, value in weights(tmp_path / "plain").items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-6, msg=name)


def test_a_wrong_gradient_is_refused_before_the_first_update(
    reversal: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As of a compiler that once lost what flows back through a dropout, on a GPU."""

    def lose(graph: Callable[..., torch.Tensor], **_: Any) -> Callable[..., torch.Tensor]:
        def run_graph(layer: Any, x: torch.Tensor, *others: Any) -> torch.Tensor:
            return graph(layer, x, *others).detach() + (x - x.detach())

        return run_graph

    graphs._compiled.cache_clear()
    monkeypatch.setattr(torch, "compile", lose)
    for precision in ([], ["--bf16"]):
        assert run(main, train_arguments(reversal, tmp_path, "--compile", *precision)) == 2
        told = capsys.readouterr().err
        assert re.fullmatch(
            r"error: --compile: torch \S+ compiler gets .* on this machine's cpu, by \S+ of their .*\n", told
        )
    graphs._compiled.cache_clear()
