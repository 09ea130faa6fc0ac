from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_from_nothing_to_bleu_and_on_from_there(recipe, tmp_path: Path) -> None:
    out = tmp_path / "with a space"
    first = recipe("quickstart.sh", "--out", out, UPDATES="4", SEQBA_VENV=sys.prefix)
    assert first.returncode == 0, first.stderr
    assert re.search(r"BLEU", first.stdout.splitlines()[-1])
    prepared = (out / "data-bin" / ".complete").stat().st_mtime_ns
    second = recipe("quickstart.sh", "--out", out, UPDATES="6")
    assert second.returncode == 0, second.stderr
    assert (out / "data-bin" / ".complete").stat().st_mtime_ns == prepared
