from __future__ import annotations

import dataclasses
import hashlib
import zipfile
from pathlib import Path

import pytest
import wikitext2
from fetching import Source

from seqba.cli.command import run
from seqba.cli.preprocess import main as preprocess
from seqba.data.dictionary import Dictionary
from seqba.data.indexed import IndexedCorpus

TEXTS = {
    "train": " \n = Robert <unk> = \n \n Robert <unk> is an actor . \n",
    "valid": " \n = An actor = \n",
    "test": " \n = Robert = \n \n",
}
TOKENS = {"train": 14, "valid": 6, "test": 6}


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A toy archive of the published form, and a script that knows it."""
    path = tmp_path / "public" / "wikitext-2-v1.zip"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for split, text in TEXTS.items():
            archive.writestr(f"wikitext-2/wiki.{split}.tokens", text)
    publish(path, monkeypatch)
    return path


def publish(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Source(path.as_uri(), "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest())
    known = dataclasses.replace(wikitext2.CORPUS, archive=source, tokens=TOKENS, vocabulary=9)
    monkeypatch.setattr(wikitext2, "CORPUS", known)


@pytest.mark.parametrize("given", ["download", "archive", "texts"])
def test_every_line_stays_empty_ones_too(
    archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], given: str
) -> None:
    arguments = ["--to", str(tmp_path / "to")]
    if given == "archive":
        arguments += ["--from", str(archive.parent)]
    if given == "texts":
        with zipfile.ZipFile(archive) as members:
            members.extractall(tmp_path)
        arguments += ["--from", str(tmp_path / "wikitext-2")]
    assert wikitext2.main(arguments) == 0
    assert (tmp_path / "to" / "train.txt").read_text() == "\n= Robert <unk> =\n\nRobert <unk> is an actor .\n"
    assert "not WikiText-2 as published" not in capsys.readouterr().err


def test_the_data_folder_has_the_released_codes_tokens(archive: Path, tmp_path: Path) -> None:
    text, data = tmp_path / "to", tmp_path / "data-bin"
    wikitext2.main(["--to", str(text)])
    splits = [part for split in TEXTS for part in (f"--{split}pref", str(text / f"{split}.txt"))]
    assert preprocess(["--only-source", *splits, "--padding-factor", "1", "--destdir", str(data)]) == 0
    dictionary = Dictionary.load(data / "dict.txt")
    assert len(dictionary) == 4 + 6  # "An" is in valid.txt alone
    train = IndexedCorpus(data / "train", vocabulary_size=len(dictionary))
    assert {split: int(IndexedCorpus(data / split).sizes.sum()) for split in TEXTS} == TOKENS
    assert list(train.sizes) == [1, 5, 1, 7]
    assert list(train[0]) == [dictionary.eos]
    assert train[1][2] == dictionary.unk


def test_an_archive_cut_short_is_one_line(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--to", str(tmp_path / "to"), "--from", str(archive.parent)]
    archive.write_bytes(archive.read_bytes()[:-40])
    assert run(wikitext2.main, arguments) == 2
    assert "not the published" in capsys.readouterr().err
    publish(archive, monkeypatch)
    assert run(wikitext2.main, arguments) == 2
    error = capsys.readouterr().err
    assert "wikitext-2-v1.zip: not a whole zip archive" in error
    assert error.count("\n") == 1


def test_a_folder_without_the_texts_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(wikitext2.main, ["--to", str(tmp_path / "to"), "--from", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "neither wiki.train.tokens nor wiki.train.tokens.gz nor train.txt" in error
    assert "wikitext-2-v1.zip is there; --from takes a folder with the three texts or the archive" in error
    assert error.count("\n") == 1
