from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "support"))

from alphabet import write_alphabet
from reversal import write_reversal
from torch_versions import SHARDS_PARAMETERS
from toy_images import write_coloured_cifar


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts files with slow tests first, so that no worker is left with one when the others have ended."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session", autouse=True)
def signals_of_a_terminal() -> Iterator[None]:
    """Processes of tests hear SIGINT and SIGHUP, which those of a suite in the background (`&`, nohup) would ignore.

    A handler is not inherited, and this one does nothing, so that the suite itself goes on ignoring them.
    """
    ignored = [each for each in (signal.SIGINT, signal.SIGHUP) if signal.getsignal(each) == signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, lambda *_: None)
    yield
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)


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


@pytest.fixture(scope="session")
def sharding() -> None:
    """For what shards parameters: skipped with a torch that is refused for it."""
    if not SHARDS_PARAMETERS:
        pytest.skip("sharded parameters need torch 2.13 or later: docs/distributed.md")
