"""A run on blocks of text and its measurement, for the tests of seqba-measure and seqba-advise."""

from __future__ import annotations

from pathlib import Path

import pytest

from seqba.cli.command import run
from seqba.cli.measure import main as measure
from seqba.cli.train import main as train
from seqba.training.folder import LAST

TINY = [
    *("--decoder-layers", "1", "--decoder-embed-dim", "16", "--decoder-ffn-embed-dim", "16"),
    *("--decoder-attention-heads", "2", "--cpu", "--max-update", "3", "--log-format", "none"),
]


FEW = ["--examples", "6", "--draws", "2", "--pairs", "4", "--cpu"]


def trained(data: Path, folder: Path, *arguments: str) -> Path:
    assert run(train, [str(data), "--save-dir", str(folder), *arguments]) == 0
    return folder / LAST


@pytest.fixture(scope="session")
def blocks(alphabet: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Transformer that learns the alphabet."""
    folder = tmp_path_factory.mktemp("blocks")
    sizes = ["--tokens-per-sample", "12", "--max-tokens", "60", "--lr", "0.01", "--dropout", "0.2"]
    return trained(alphabet, folder, "--task", "language_modeling", *TINY, *sizes, "--update-freq", "2")


@pytest.fixture(scope="session")
def measured(alphabet: Path, blocks: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What was measured of the Transformer on the alphabet."""
    file = tmp_path_factory.mktemp("measured") / "split.json"
    assert measure([str(alphabet), "--path", str(blocks), *FEW, "--json", str(file)]) == 0
    return file
