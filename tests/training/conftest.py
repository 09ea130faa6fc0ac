from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import small_runs

from seqba.training.signals import StopSignal


@pytest.fixture(autouse=True)
def _closed_logs() -> Iterator[None]:
    yield
    while small_runs.open_logs:
        small_runs.open_logs.pop().close()


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """A folder after six updates: one epoch and two updates of the second."""
    folder = tmp_path / "trained"
    small_runs.make_loop(small_runs.make_options(folder, max_update=6)).run(StopSignal())
    return folder
