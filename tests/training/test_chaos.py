"""A run that is killed at any moment goes on to the weights of one that never was, and leaves no broken file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from preloaded import preloaded

from seqba.checkpoints.file import read_checkpoint
from seqba.training.folder import LAST


@pytest.mark.slow
@pytest.mark.parametrize(("ranks", "kills", "updates"), [(1, 50, 500), (2, 10, 200)])
def test_kills_change_no_bit(alphabet: Path, tmp_path: Path, ranks: int, kills: int, updates: int) -> None:
    script, seed = Path(__file__).with_name("chaos_runs.py"), 1
    tormented = subprocess.run(
        [preloaded().python, script, alphabet, tmp_path, *map(str, (kills, seed, updates, ranks))],
        env={**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert tormented.returncode == 0, tormented.stderr
    sys.stdout.write(tormented.stdout)  # pytest -rP shows it
    straight, killed = (read_checkpoint(tmp_path / name / LAST) for name in ("straight", "killed"))
    assert (straight["raw_model"] is None) == (killed["raw_model"] is None)
    for part in ("model", "raw_model"):
        for name, weight in (straight[part] or {}).items():
            assert torch.equal(killed[part][name], weight), name
    assert {path.name for path in (tmp_path / "killed").iterdir()} >= {
        path.name for path in (tmp_path / "straight").iterdir()
    }
    figures = json.loads(tormented.stdout)
    assert figures["last"] > figures["first"]  # some lives were long enough to get on
    assert "Traceback" not in tormented.stderr
