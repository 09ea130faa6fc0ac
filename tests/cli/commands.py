"""What the tests of training commands share."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from seqba.checkpoints.file import read_checkpoint
from seqba.cli.command import run
from seqba.cli.train import main as train


def weights(path: Path) -> dict[str, torch.Tensor]:
    """The weights in a checkpoint."""
    state: dict[str, torch.Tensor] = read_checkpoint(path)["model"]
    return state


def last_complaint(capsys: pytest.CaptureFixture[str], status: int) -> str:
    """The last line on stderr of a command that must have failed with status 2."""
    assert status == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("error: ")
    return line


def same(first: Path, second: Path) -> bool:
    """Whether two checkpoints have the same weights, bit for bit."""
    one, other = weights(first), weights(second)
    return list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in one)


def train_complaint(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on stderr of a command that must fail with status 2."""
    assert run(train, arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    return captured.err
