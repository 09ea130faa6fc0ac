"""A disk that fills while a command writes: one line that names the user's file, and nothing half-written."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from translation_world import World

from seqba.cli.command import run
from seqba.cli.export import main as export
from seqba.cli.generate import main as generate


def fill_disk(monkeypatch: pytest.MonkeyPatch, files: int) -> None:
    """After so many files none can be written any more."""
    sync, left = os.fsync, iter(range(2 * files))  # a file and its folder

    def fsync(descriptor: int) -> None:
        if next(left, None) is None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)


@pytest.mark.parametrize("is_there", [True, False])
def test_a_folder_for_transformers_is_written_whole_or_not_at_all(
    is_there: bool,
    plain_world: World,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("safetensors", reason="pip install -e .[export]")
    out = tmp_path / "new" / "out"
    command = [str(plain_world.checkpoint), "--to", "transformers", "--data", str(plain_world.data), "-o", str(out)]
    if is_there:
        assert run(export, command) == 0
        for file in out.iterdir():
            file.write_text("of an earlier call")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    fill_disk(monkeypatch, files=2)
    capsys.readouterr()
    assert run(export, command) == 2
    told = capsys.readouterr().err
    assert told == f"error: the disk is full ({out}/source.spm): free some space and run the same command again\n"
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert is_there or not list(tmp_path.iterdir())


def test_translations_that_find_no_room_leave_no_folder(
    plain_world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fill_disk(monkeypatch, files=0)
    command = [str(plain_world.data), "--path", str(plain_world.checkpoint), "--cpu", "--max-len-b", "9", "--quiet"]
    assert run(generate, [*command, "--results-path", str(tmp_path / "new" / "out")]) == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith(f"error: the disk is full ({tmp_path}/new/out/generate-test.txt): free")
    assert not list(tmp_path.iterdir())
