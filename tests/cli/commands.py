"""What the tests of training commands share."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from seqba.checkpoints.file import read_checkpoint


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
