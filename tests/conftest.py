from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "support"))

from alphabet import write_alphabet
from reversal import write_reversal
from toy_images import write_coloured_cifar


@pytest.fixture(scope="session")
def reversal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data-bin of the toy language pair; read only."""
    return write_reversal(tmp_path_factory.mktemp("reversal") / "data-bin")


@pytest.fixture(scope="session")
def alphabet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data-bin of the toy text; read only."""
    return write_alphabet(tmp_path_factory.mktemp("alphabet") / "data-bin")


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a toy CIFAR-10: 80 training and 20 test pictures; read only."""
    return write_coloured_cifar(tmp_path_factory.mktemp("pictures") / "cifar")
