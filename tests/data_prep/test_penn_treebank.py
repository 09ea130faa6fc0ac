from __future__ import annotations

import dataclasses
import functools
import gzip
import hashlib
import io
import tarfile
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import penn_treebank
import pytest
from fetching import Source

from seqba.cli.command import run

TEXTS = {
    "train": b" no it was n't black monday \n but <unk> N days later \n",
    "valid": b" it was monday \n",
    "test": b" it was <unk> \n it was N \n",
}
CLEAN = {
    "train": "no it was n't black monday\nbut <unk> N days later\n",
    "valid": "it was monday\n",
    "test": "it was <unk>\nit was N\n",
}
TOY = {"tokens": {"train": 13, "valid": 4, "test": 8}, "vocabulary": 12}


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The texts under their published names; one of them gzipped."""
    folder = tmp_path / "from"
    folder.mkdir()
    for split in ("train", "valid"):
        (folder / f"ptb.{split}.txt").write_bytes(TEXTS[split])
    (folder / "ptb.test.txt.gz").write_bytes(gzip.compress(TEXTS["test"]))
    return folder


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A toy archive of the published form, on a local server to which the script's table points."""
    public = tmp_path / "public"
    public.mkdir()
    path = public / "simple-examples.tgz"
    with tarfile.open(path, "w:gz") as tar:
        for name, content in {"README": b"rnnlm", **{f"data/ptb.{split}.txt": TEXTS[split] for split in TEXTS}}.items():
            entry = tarfile.TarInfo(f"./simple-examples/{name}")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(QuietHandler, directory=public))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    publish(path, monkeypatch, f"http://127.0.0.1:{server.server_port}/simple-examples.tgz")
    yield path
    server.shutdown()
    server.server_close()
    thread.join()


def publish(path: Path, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """Makes `path` the known archive, and the toy's figures the known ones."""
    source = Source(url, "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest())
    monkeypatch.setattr(penn_treebank, "CORPUS", dataclasses.replace(penn_treebank.CORPUS, archive=source, **TOY))


def texts(folder: Path) -> dict[str, str]:
    return {path.stem: path.read_text(encoding="utf-8") for path in folder.glob("*.txt")}


def test_plain_and_gzipped_texts_are_taken_from_a_folder(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert penn_treebank.main(["--to", str(tmp_path / "to"), "--from", str(folder)]) == 0
    assert texts(tmp_path / "to") == CLEAN
    note = capsys.readouterr().err
    assert note.count("\n") == 1
    assert "is not Penn Treebank (Mikolov) as published: 13 / 4 / 8 tokens of 12 kinds" in note
    assert "not 929,589 / 73,760 / 82,430 tokens of 10,000 kinds" in note


def test_our_own_names_are_taken_too(folder: Path, tmp_path: Path) -> None:
    for path in folder.iterdir():
        path.rename(folder / path.name.removeprefix("ptb."))
    assert penn_treebank.main(["--to", str(tmp_path / "to"), "--from", str(folder)]) == 0
    assert texts(tmp_path / "to") == CLEAN


def test_the_archive_is_downloaded_once_and_read(
    archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    to = tmp_path / "to"
    assert penn_treebank.main(["--to", str(to)]) == 0
    assert texts(to) == CLEAN
    assert capsys.readouterr().err.splitlines() == [f"downloading {penn_treebank.CORPUS.archive.url}"]
    kept = (to / "train.txt").stat().st_mtime_ns
    (to / "test.txt").unlink()
    assert penn_treebank.main(["--to", str(to)]) == 0
    assert texts(to) == CLEAN
    assert (to / "train.txt").stat().st_mtime_ns == kept
    assert capsys.readouterr().err == ""


def test_the_archive_is_taken_from_a_folder(archive: Path, tmp_path: Path) -> None:
    assert penn_treebank.main(["--to", str(tmp_path / "to"), "--from", str(archive.parent)]) == 0
    assert texts(tmp_path / "to") == CLEAN


def test_an_archive_cut_short_is_one_line(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def complaint() -> str:
        assert run(penn_treebank.main, ["--to", str(tmp_path / "to"), "--from", str(archive.parent)]) == 2
        assert not (tmp_path / "to" / "test.txt").exists()
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        return error

    archive.write_bytes(archive.read_bytes()[:-40])
    assert "not the published" in complaint()
    publish(archive, monkeypatch, archive.as_uri())  # even if that were the published digest
    assert "simple-examples.tgz: not a whole tar archive" in complaint()


def test_an_archive_of_something_else_is_one_line(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with tarfile.open(archive, "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("simple-examples/README"))
    publish(archive, monkeypatch, archive.as_uri())
    assert run(penn_treebank.main, ["--to", str(tmp_path / "to")]) == 2
    assert "there is no simple-examples/data/ptb.train.txt in it" in capsys.readouterr().err


def test_mistakes_are_one_line(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def complaint() -> str:
        assert run(penn_treebank.main, ["--to", str(tmp_path / "to"), "--from", str(folder)]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        return error

    (folder / "ptb.test.txt.gz").write_bytes((folder / "ptb.test.txt.gz").read_bytes()[:-12])
    assert "ptb.test.txt.gz: not a whole gzip file" in complaint()
    assert not (tmp_path / "to" / "test.txt").exists()
    (folder / "ptb.test.txt.gz").unlink()
    assert "neither ptb.test.txt nor ptb.test.txt.gz nor test.txt" in complaint()
    (folder / "test.txt").write_bytes(b"")
    assert "there is no line in it" in complaint()
    (folder / "test.txt").write_bytes(b"a b\nc\xff\n")
    assert "test.txt (test.txt), line 2: byte 0xff is not UTF-8" in complaint()
    (folder / "test.txt").write_bytes(b"\x1f\x8b\x08")
    assert "test.txt (test.txt) is a gzip file, not UTF-8 text: unpack it first" in complaint()
    assert sorted(path.name for path in (tmp_path / "to").iterdir()) == ["train.txt", "valid.txt"]


def test_lines_end_as_everywhere_and_a_byte_order_mark_is_no_word(folder: Path, tmp_path: Path) -> None:
    (folder / "ptb.test.txt.gz").unlink()
    (folder / "test.txt").write_bytes("\ufeffa b\r\n c\rd\u2028e \n\nf".encode())
    assert penn_treebank.main(["--to", str(tmp_path / "to"), "--from", str(folder)]) == 0
    assert (tmp_path / "to" / "test.txt").read_bytes() == "a b\nc\nd\u2028e\n\nf\n".encode()
