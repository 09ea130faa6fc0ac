from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from reversal import write_reversal


@pytest.fixture(scope="session")
def reversal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data-bin of the toy language pair; read only."""
    return write_reversal(tmp_path_factory.mktemp("reversal") / "data-bin")
