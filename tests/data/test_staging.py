"""Files come to where they belong together, or not at all, and what killed processes left goes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from seqba.data import partial
from seqba.data.staging import staged

HOLDER = """
import sys
from seqba.data.staging import staged
with staged(sys.argv[1]) as stage:
    (stage / "dict.txt").touch()
    print(stage.name, flush=True)
    sys.stdin.readline()
"""


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def test_files_appear_together_and_vanish_together(tmp_path: Path) -> None:
    with staged(str(tmp_path / "bin")) as stage:
        (stage / "dict.txt").write_text("a 1\n")
        assert names(tmp_path / "bin") == [stage.name]
    assert names(tmp_path / "bin") == ["dict.txt"]

    def fail() -> None:
        with staged(str(tmp_path / "other")) as stage:
            (stage / "dict.txt").touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert names(tmp_path) == ["bin"]


@pytest.mark.skipif(partial.fcntl is None, reason="this system has no locks")
def test_a_folder_goes_once_its_process_was_killed(tmp_path: Path) -> None:
    (tmp_path / ".preprocess-notes").touch()
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        left = process.stdout.readline().strip()
        with staged(str(tmp_path)) as stage:
            assert names(tmp_path) == sorted([".preprocess-notes", left, stage.name])
        process.kill()
        process.wait()
    assert names(tmp_path / left) == ["dict.txt"]
    with staged(str(tmp_path)) as stage:
        assert names(tmp_path) == sorted([".preprocess-notes", stage.name])
    assert names(tmp_path) == [".preprocess-notes"]
