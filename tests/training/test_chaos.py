"""A run that is killed at any moment goes on to the weights of one that never was, and leaves no broken file."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from chaos_runs import RUN

from seqba.cli.command import run
from seqba.cli.train import main
from seqba.training.checkpoint import read_checkpoint
from seqba.training.folder import LAST

UPDATES = "400"


@pytest.mark.slow
def test_fifty_kills_change_no_bit(alphabet: Path, tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    assert run(main, [str(alphabet), "--save-dir", str(tmp_path / "straight"), "--max-update", UPDATES, *RUN]) == 0
    torch.set_num_threads(threads)
    tormented = subprocess.run(
        [sys.executable, Path(__file__).with_name("chaos_runs.py"), alphabet, tmp_path / "killed", "50", "1", UPDATES],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert tormented.returncode == 0, tormented.stderr
    straight, killed = (read_checkpoint(tmp_path / name / LAST) for name in ("straight", "killed"))
    for part in ("model", "raw_model"):
        for name, weight in straight[part].items():
            assert torch.equal(killed[part][name], weight), name
    assert {path.name for path in (tmp_path / "killed").iterdir()} >= {
        path.name for path in (tmp_path / "straight").iterdir()
    }
    first, last = map(int, tormented.stdout.split())
    assert last > first  # some lives were long enough to get on
