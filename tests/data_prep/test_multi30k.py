from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

import multi30k
import pytest

from seqba.cli.command import run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three tiny splits; the German sides are gzipped, as in the corpus's repository."""
    folder = tmp_path / "from"
    folder.mkdir()
    for split in multi30k.SPLITS:
        (folder / f"{split}.en").write_text(f"{split} one\n{split} two\n", encoding="utf-8")
        (folder / f"{split}.de.gz").write_bytes(gzip.compress(f"{split} eins\n{split} zwei\n".encode()))
    return folder


def test_plain_and_gzipped_files_are_taken_from_a_folder(folder: Path, tmp_path: Path) -> None:
    assert multi30k.main(["--to", str(tmp_path / "to"), "--from", str(folder)]) == 0
    assert sorted(path.name for path in (tmp_path / "to").iterdir()) == sorted(multi30k.DIGESTS)
    assert (tmp_path / "to" / "val.de").read_text(encoding="utf-8") == "val eins\nval zwei\n"


def test_the_download_reads_the_repository_and_checks_it(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for split in multi30k.SPLITS:
        (folder / f"{split}.en.gz").write_bytes(gzip.compress((folder / f"{split}.en").read_bytes()))
    digests = {
        name: "md5:" + hashlib.md5((folder / f"{name}.gz").read_bytes(), usedforsecurity=False).hexdigest()
        for name in multi30k.DIGESTS
    }
    monkeypatch.setattr(multi30k, "DIGESTS", digests)
    monkeypatch.setattr(multi30k, "BASE_URL", folder.as_uri())
    assert multi30k.main(["--to", str(tmp_path / "to")]) == 0
    assert (tmp_path / "to" / "train.en").read_text(encoding="utf-8") == "train one\ntrain two\n"


def test_mistakes_are_one_line(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def complaint() -> str:
        assert run(multi30k.main, ["--to", str(tmp_path / "to"), "--from", str(folder)]) == 2
        return capsys.readouterr().err

    (folder / "val.de.gz").write_bytes((folder / "val.de.gz").read_bytes()[:-12])
    assert "val.de.gz: not a whole gzip file" in complaint()
    assert not (tmp_path / "to" / "val.de").exists()
    (folder / "val.de.gz").unlink()
    assert "neither val.de nor val.de.gz is there" in complaint()
    (folder / "val.de").write_bytes("eins\nzwei\n".encode("utf-16"))
    assert "val.de is UTF-16 text, not UTF-8 text: convert it" in complaint()
    assert not (tmp_path / "to" / "val.de").exists()
    (folder / "val.de").write_text("only one\n", encoding="utf-8")
    error = complaint()
    assert "val.en has 2 lines" in error
    assert error.count("\n") == 1
