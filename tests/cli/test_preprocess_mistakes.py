"""Mistakes of seqba-preprocess, full disks included: one line, and nothing is left behind."""

from __future__ import annotations

import errno
import gzip
import os
import re
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from preprocessing import ENGLISH, complaint, preprocess, put, untouched

from seqba.cli.preprocess import UNSUPPORTED, main
from seqba.errors import UserError


def test_bad_tables_leave_nothing_behind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "t.jsonl").write_text('{"en": "a", "de": "x"}\n{"en": "b"}\n')
    (tmp_path / "empty.tsv").write_text("en\tde\n")
    columns = ("--source-column", "en", "--target-column", "de")
    common = ("-s", "en", "-t", "de", "--destdir", tmp_path / "bin")
    with untouched(tmp_path / "bin"):
        line = complaint(capsys, *common, "--trainpref", tmp_path / "t.jsonl", *columns)
        assert f"{tmp_path}/t.jsonl, line 2 has no 'de'; it has: en" in line
        line = complaint(capsys, *common, "--trainpref", tmp_path / "empty.tsv", *columns)
        assert f"text {tmp_path}/empty.tsv (en) is empty" in line
        line = complaint(capsys, *common, "--trainpref", tmp_path / "t.jsonl")
        assert f"{tmp_path}/t.jsonl is a table by its name: give the column" in line


BAD_TEXTS: dict[str, tuple[str | bytes, str | bytes, str]] = {
    "empty": ("", "", "train.en is empty; check the prefix"),
    "empty on one side": (ENGLISH, "", "train.de is empty; check the prefix"),
    "fewer lines": (
        ENGLISH,
        "x\ny\n",
        "train.en has 3 lines and {0}/train.de has 2: line i of one must translate line i",
    ),
    "carriage return": ("a\nb\rb\n", "x\ny\n", "train.en has 3 lines and {0}/train.de has 2"),
    "latin-1": (ENGLISH, b"x\nGr\xfc\xdfe\nz\n", "train.de, line 2: byte 0xfc is not UTF-8; convert the file"),
    "utf-16": ("a\nb\n".encode("utf-16"), "x\ny\nz\n", "train.en is UTF-16 text, not UTF-8 text: convert it"),
    "gzip": (gzip.compress(ENGLISH.encode()), "x\ny\nz\n", "train.en is a gzip file, not UTF-8 text: unpack it first"),
    "one side a picture": ("", b"\x89PNG\r\n\x1a\n", "train.de is a PNG picture, not UTF-8 text"),
    "latin-1 at the end": ("a\n" * 9, b"x\n" * 7 + b"\xfc\n", "train.de, line 8: byte 0xfc is not UTF-8"),
}


@pytest.mark.parametrize("case", BAD_TEXTS)
def test_bad_texts_leave_nothing_behind(tmp_path: Path, capsys: pytest.CaptureFixture[str], case: str) -> None:
    english, german, message = BAD_TEXTS[case]
    train = put(tmp_path, "train", english, german)
    with untouched(tmp_path / "bin"):
        line = complaint(capsys, "-s", "en", "-t", "de", "--destdir", tmp_path / "bin", "--trainpref", train)
    assert message.format(tmp_path) in line


def test_missing_texts_and_dictionaries(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ("-s", "en", "-t", "de", "--destdir", tmp_path / "bin")
    train = put(tmp_path, "train")
    with untouched(tmp_path / "bin"):
        line = complaint(capsys, *common, "--trainpref", tmp_path / "absent")
        assert f"text {tmp_path}/absent.en does not exist; check the prefix and the language" in line
        line = complaint(capsys, *common, "--trainpref", train, "--srcdict", tmp_path / "absent.txt")
        assert f"dictionary {tmp_path}/absent.txt does not exist" in line
        line = complaint(capsys, *common, "--trainpref", train, "--sentencepiece-model", f"{train}.en")
        assert "train.en is not a SentencePiece model" in line


def test_an_existing_dictionary_is_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("-s", "en", "-t", "de", "--destdir", tmp_path / "bin", "--trainpref", put(tmp_path, "train"))
    assert main([str(argument) for argument in arguments]) == 0
    with untouched(tmp_path / "bin"):
        assert "dict.en.txt exists and is not overwritten: choose another --destdir" in complaint(capsys, *arguments)
        line = complaint(capsys, *arguments, "--srcdict", tmp_path / "bin" / "dict.en.txt")
        assert "dict.de.txt exists and is not overwritten" in line


def test_subwords_and_plain_tokens_are_not_mixed_in_a_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = put(tmp_path, "train", "the dog and the fox\n" * 9, "der Hund und der Fuchs\n" * 9)
    folder = preprocess(tmp_path / "bin", "--trainpref", train, "--sentencepiece", 50)
    dictionaries = ("--srcdict", folder / "dict.en.txt", "--tgtdict", folder / "dict.de.txt")
    with untouched(folder):
        line = complaint(capsys, "-s", "en", "-t", "de", "--destdir", folder, "--testpref", train, *dictionaries)
    assert "holds a SentencePiece model: give --sentencepiece-model" in line


CONTRADICTIONS = {
    "--trainpref T": "give --source-lang and --target-lang, or --only-source",
    "-s en -t en --trainpref T": "are both 'en'",
    "-s en -t de": "--trainpref is missing",
    "-s en -t de --testpref T --srcdict D": "--trainpref is missing",
    "-s en -t de --trainpref T --joined-dictionary --srcdict D --tgtdict D": "--joined-dictionary is one dictionary",
    "-s en -t de --trainpref T --joined-dictionary --thresholdtgt 3": "limited by --thresholdsrc and --nwordssrc",
    "-s en -t de --trainpref T --srcdict D --nwordssrc 9": "--srcdict is taken as it is",
    "-s en -t de --trainpref T --tgtdict D --thresholdtgt 9": "--tgtdict is taken as it is",
    "-s en -t de --trainpref T --sentencepiece 50 --srcdict D": "give the model that belongs to the dictionary",
    "-s en -t de --trainpref T --sentencepiece 50 --sentencepiece-model M": "give one of them",
    "-s en --only-source --trainpref T --tgtdict D": "--only-source has no target side",
    "-s en --only-source --trainpref T --target-column de": "--only-source has no target side: leave out",
    "-s en -t de --trainpref T --weights 3,1": "--weights are of 2 texts, and --trainpref names 1: give one for each",
    "-s en -t de --trainpref T --weights 3 --dict-only": "--dict-only writes no texts to mix",
    "-s en -t de --trainpref T --weights 0": "--weights is 0; it must be greater than 0",
    "-s en -t de --trainpref T --source-column en": "give --source-column and --target-column",
    "-s en -t de --trainpref T --source-column x --target-column x": "--target-column are both 'x'",
    "-s en -t de --trainpref T --source-column x --target-column y": "train is not a table by its name",
    "-s en -t de --trainpref T --dataset-impl raw": "mmap is the one format",
    "-s en -t de --trainpref T --workers 0": "--workers is 0; it must be at least 1",
    "-s en -t de --trainpref T --thresholdsrc -1": "--thresholdsrc is -1; it must be at least 0",
    "-s en -t de --trainpref T --sentencepiece many": "argument --sentencepiece: invalid int value: 'many'",
    "-s en -t de --trainpref T --sentencepeice 50": "did you mean --sentencepiece?",
    "-s en -t de --trainpref T --sentencepiece 8000": "SentencePiece cannot learn 8000 pieces from this text",
}


@pytest.mark.parametrize("command", CONTRADICTIONS)
def test_contradictory_options(tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str) -> None:
    train = put(tmp_path, "train")
    words = [{"T": train, "D": "dict.txt", "M": "m.model"}.get(word, word) for word in command.split()]
    with untouched(tmp_path / "bin"):
        line = complaint(capsys, *words, "--destdir", tmp_path / "bin")
    assert CONTRADICTIONS[command] in line


@pytest.mark.parametrize("flag", UNSUPPORTED)
def test_fairseqs_other_options_are_refused_by_name(flag: str) -> None:
    with pytest.raises(UserError, match=rf"{flag} is not an option here: .*"):
        main([flag, "value"])


def test_a_destination_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("not a folder")
    arguments = ("-s", "en", "-t", "de", "--trainpref", put(tmp_path, "train"), "--destdir")
    for destination in ("file", "file/below"):
        line = complaint(capsys, *arguments, tmp_path / destination)
        assert f"--destdir {tmp_path}/{destination} can't be written to" in line


def test_an_empty_destination_is_not_the_current_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    train = put(tmp_path, "train")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert "--destdir is empty" in complaint(capsys, "-s", "en", "-t", "de", "--trainpref", train, "--destdir", "")
    assert not list(Path().iterdir())


@pytest.mark.parametrize("created", [True, False])
def test_a_full_disk_leaves_nothing_behind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *, created: bool
) -> None:
    folder = tmp_path / "bin"
    if created:
        folder.mkdir()
        (folder / "notes.txt").write_text("the user's own")
    sync = os.fsync
    monkeypatch.setattr(os, "fsync", _failing_after(5, sync))
    arguments = ("-s", "en", "-t", "de", "--destdir", folder, "--trainpref", put(tmp_path, "train"))
    with untouched(folder):
        line = complaint(capsys, *arguments)
    assert "the disk is full" in line
    assert re.search(rf"\({re.escape(str(folder))}/[^./]+[^/]*\)", line)  # not the hidden one that is written to
    assert "free some space and run the same command again" in line


def _failing_after(calls: int, sync: Callable[[int], None]) -> Callable[[int], None]:
    left = iter(range(calls))

    def fsync(descriptor: int) -> None:
        if next(left, None) is None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(descriptor)

    return fsync


@pytest.mark.slow
def test_a_file_size_limit_is_one_line_and_leaves_nothing_behind(tmp_path: Path) -> None:
    train = put(tmp_path, "train", "a b c d\n" * 20_000, "x y z\n" * 20_000)
    command = [
        sys.executable,
        "-c",
        "from seqba.cli.preprocess import entry; entry()",
        "-s",
        "en",
        "-t",
        "de",
        "--destdir",
        str(tmp_path / "bin"),
    ]
    done = subprocess.run(
        [*command, "--trainpref", train],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)),
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: File too large (")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "bin").exists()
