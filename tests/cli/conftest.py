from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

# Modules that the tests of this folder share; it is no package.
sys.path.insert(0, str(Path(__file__).parent))

from measured_runs import blocks, measured  # noqa: F401 - fixtures
from picture_runs import image_run  # noqa: F401 - fixture
from translation_world import World, make_world


@pytest.fixture(scope="session")
def plain_world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A data-bin with its own SentencePiece model."""
    return make_world(tmp_path_factory.mktemp("plain"), sentencepiece=True)


@pytest.fixture(scope="session")
def token_world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A data-bin of tokens with `@@ ` joints."""
    return make_world(tmp_path_factory.mktemp("tokens"), sentencepiece=False)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Sums come out the same to the last bit on one thread alone."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
