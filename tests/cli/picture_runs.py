"""Runs of a tiny network on coloured pictures."""

from __future__ import annotations

from pathlib import Path

import pytest

from seqba.cli.command import run
from seqba.cli.train import main

RESNET = [
    *("--task", "image_classification", "--arch", "resnet8", "--cpu", "--log-format", "json", "--log-interval", "1"),
    *("--batch-size", "8", "--valid-subset", "test", "--copies", "2", "--cutout", "8"),
    *("--optimizer", "sgd", "--momentum", "0.9", "--lr", "0.05", "--weight-decay", "1e-4"),
    *("--weight-decay-on", "weights", "--lr-scheduler", "step", "--lr-drops", "1", "--no-epoch-checkpoints"),
]


def train(data: Path, save_dir: Path, *more: str) -> int:
    return run(main, [str(data), "--save-dir", str(save_dir), *RESNET, *more])


@pytest.fixture(scope="session")
def image_run(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three epochs, read only."""
    folder = tmp_path_factory.mktemp("trained")
    assert train(pictures, folder, "--max-epoch", "3", "--log-file", str(folder / "log.jsonl")) == 0
    return folder
