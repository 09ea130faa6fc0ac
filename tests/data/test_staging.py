"""Files come to where they belong together, or not at all, and what killed processes left goes."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from seqba.data import partial
from seqba.data.staging import staged

HOLDER = """
import sys
from seqba.data.staging import staged
with staged(sys.argv[1], "", last="dict.") as stage:
    (stage / "dict.txt").touch()
    print(stage.name, flush=True)
    sys.stdin.readline()
"""


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def test_files_appear_together_and_vanish_together(tmp_path: Path) -> None:
    with staged(tmp_path / "bin", "", last="dict.") as stage:
        (stage / "dict.txt").write_text("a 1\n")
        assert names(tmp_path / "bin") == [stage.name]
    assert names(tmp_path / "bin") == ["dict.txt"]

    def fail() -> None:
        with staged(tmp_path / "other", "", last="dict.") as stage:
            (stage / "dict.txt").touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert names(tmp_path) == ["bin"]


def test_an_error_carries_the_name_that_the_file_would_have_got(tmp_path: Path) -> None:
    for name, told in (("dict.txt", tmp_path / "bin" / "dict.txt"), (os.fsencode(tmp_path), os.fsencode(tmp_path))):
        with pytest.raises(OSError, match="full") as raised, staged(tmp_path / "bin", "", last="dict.") as stage:
            raise OSError(28, "full", str(stage / name) if isinstance(name, str) else name)
        assert raised.value.filename == (str(told) if isinstance(name, str) else told)
    assert names(tmp_path) == []


@pytest.mark.skipif(partial.fcntl is None, reason="this system has no locks")
def test_so_does_one_of_a_file_that_can_t_come_to_where_it_belongs(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError, match="taken") as raised, staged(tmp_path, "--to", last="last") as stage:
        (stage / "taken").write_text("")
    assert raised.value.filename == str(tmp_path / "taken")


def test_a_folder_of_a_process_that_was_killed_in_its_first_instants_goes(tmp_path: Path) -> None:
    code = "import os, tempfile; from seqba.data import staging; mkdtemp = tempfile.mkdtemp\n"
    code += "tempfile.mkdtemp = lambda **options: (mkdtemp(**options), os._exit(3))\n"
    code += "with staging.staged('.', '', last='dict.'): pass"
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path).returncode == 3
    assert len(names(tmp_path)) == 1
    with staged(tmp_path, "", last="dict.") as stage:
        assert names(tmp_path) == [stage.name]
    assert names(tmp_path) == []


@pytest.mark.skipif(partial.fcntl is None, reason="this system has no locks")
@pytest.mark.parametrize("removed", [True, False])
def test_a_folder_that_another_process_takes_for_left_behind_is_made_again(
    removed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one looks before the lock is had: it holds the folder, or has removed it."""
    made: list[Path] = []
    locks: list[int] = []
    mkdtemp = tempfile.mkdtemp

    def make(*, prefix: str, dir: Path) -> str:
        folder = Path(mkdtemp(prefix=prefix, dir=dir))
        if not made and removed:
            folder.rmdir()
        elif not made:
            locks.append(os.open(folder, os.O_RDONLY))
            assert partial.try_lock(locks[0])
        made.append(folder)
        return str(folder)

    monkeypatch.setattr(tempfile, "mkdtemp", make)
    with staged(tmp_path, "", last="dict.") as stage:
        (stage / "dict.txt").touch()
    for lock in locks:
        os.close(lock)
    assert stage == made[1]
    assert names(tmp_path) == ["dict.txt"]


@pytest.mark.skipif(partial.fcntl is None, reason="this system has no locks")
def test_a_folder_goes_once_its_process_was_killed(tmp_path: Path) -> None:
    (tmp_path / ".unfinished-notes").touch()
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        left = process.stdout.readline().strip()
        with staged(tmp_path, "", last="dict.") as stage:
            assert names(tmp_path) == sorted([".unfinished-notes", left, stage.name])
        process.kill()
        process.wait()
    assert names(tmp_path / left) == ["dict.txt"]
    with staged(tmp_path, "", last="dict.") as stage:
        assert names(tmp_path) == sorted([".unfinished-notes", stage.name])
    assert names(tmp_path) == [".unfinished-notes"]
