from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import small_runs


@pytest.fixture(autouse=True)
def _closed_logs() -> Iterator[None]:
    yield
    while small_runs.open_logs:
        small_runs.open_logs.pop().close()
