from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from rank_groups import run_groups

sys.path.insert(0, str(Path(__file__).parent))

import two_processes


@pytest.fixture(scope="session")
def processes(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two processes came to."""
    found = run_groups(two_processes.train, [2], tmp_path_factory.mktemp("groups"))
    return [found[2, rank] for rank in range(2)]
