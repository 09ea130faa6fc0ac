"""seqba-preprocess: the bytes that fairseq-preprocess writes, and one line for everything that is wrong."""

from __future__ import annotations

import errno
import gzip
import importlib.util
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from seqba.cli.command import run
from seqba.cli.preprocess import UNSUPPORTED, main
from seqba.data.dictionary import Dictionary
from seqba.data.indexed import IndexedCorpus
from seqba.data.pair_files import open_pairs
from seqba.data.subwords import load_subwords
from seqba.errors import UserError

ENGLISH = "a b a\n\n  a\tc \u00a0 b \n"
GERMAN = "x\ny x\nz x y\n"


def put(folder: Path, name: str, english: str | bytes = ENGLISH, german: str | bytes = GERMAN) -> str:
    for language, text in (("en", english), ("de", german)):
        content = text.encode() if isinstance(text, str) else text
        (folder / f"{name}.{language}").write_bytes(content)
    return str(folder / name)


def preprocess(destination: Path, *arguments: object) -> Path:
    assert main(["-s", "en", "-t", "de", "--destdir", str(destination), *map(str, arguments)]) == 0
    return destination


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "preprocess.log"}


def test_every_file_is_as_worked_by_hand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = preprocess(tmp_path / "bin", "--trainpref", put(tmp_path, "train"), "--padding-factor", 2)
    files = contents(folder)
    assert sorted(files) == ["dict.de.txt", "dict.en.txt"] + [
        f"train.en-de.{language}.{kind}" for language in ("de", "en") for kind in ("bin", "idx")
    ]
    # a 3, b 2, c 1 are ids 4, 5 and 6; seven symbols are padded to eight.
    assert files["dict.en.txt"] == b"a 3\nb 2\nc 1\nmadeupword0000 0\n"
    assert files["dict.de.txt"] == b"x 3\ny 2\nz 1\nmadeupword0000 0\n"
    # Every line ends with </s> = 2, the empty one is nothing else.
    assert files["train.en-de.en.bin"] == np.array([4, 5, 4, 2, 2, 4, 6, 5, 2], "<u2").tobytes()
    assert files["train.en-de.de.bin"] == np.array([4, 2, 5, 4, 2, 6, 4, 5, 2], "<u2").tobytes()
    assert files["train.en-de.en.idx"] == (
        b"MMIDIDX\x00\x00" + (1).to_bytes(8, "little") + b"\x08" + (3).to_bytes(8, "little")
        + np.array([4, 1, 4], "<i4").tobytes() + np.array([0, 8, 10], "<i8").tobytes()
    )  # fmt: skip
    told = capsys.readouterr().out
    assert "[en] Dictionary: 8 types" in told
    assert f"[en] {tmp_path}/train.en: 3 sents, 9 tokens, 0.0% replaced by <unk>" in told
    assert (folder / "preprocess.log").read_text() == told


def test_unknown_words_are_counted_as_fairseq_counts_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    valid = put(tmp_path, "valid", english="a new <unk>\nb\n", german="x\nx\n")
    preprocess(tmp_path / "bin", "--trainpref", put(tmp_path, "train"), "--validpref", valid)
    # 1 of 6 tokens was replaced; the text's own <unk> was not.
    assert f"[en] {valid}.en: 2 sents, 6 tokens, 16.7% replaced by <unk>" in capsys.readouterr().out


def test_comma_lists_are_numbered_splits(tmp_path: Path) -> None:
    one, two = put(tmp_path, "one"), put(tmp_path, "two", english="d\n", german="w\n")
    folder = preprocess(tmp_path / "bin", "--trainpref", f"{one},{two}", "--testpref", f"{two},{one}")
    english, german = (Dictionary.load(folder / f"dict.{language}.txt") for language in ("en", "de"))
    assert english.symbols[4:8] == ["a", "b", "c", "d"]
    for split, count in (("train", 3), ("train1", 1), ("test", 1), ("test1", 3)):
        assert len(open_pairs(folder, split, ("en", "de"), (english, german))) == count
    assert len(open_pairs(folder, "train", ("en", "de"), (english, german), combine=True)) == 4


def test_weights_are_written_beside_the_texts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pair = f"{put(tmp_path, 'one')},{put(tmp_path, 'two')}"
    folder = preprocess(tmp_path / "bin", "--trainpref", pair, "--weights", "3,0.5")
    assert (folder / "train.weights").read_text() == "3\n0.5\n"
    again = ("--srcdict", folder / "dict.en.txt", "--tgtdict", folder / "dict.de.txt", "--trainpref", pair)
    with untouched(folder):
        line = complaint(capsys, "-s", "en", "-t", "de", "--destdir", folder, *again)
    assert "train.weights holds the weights of other training texts: give --weights of these" in line
    preprocess(folder, *again, "--weights", "1,2")
    assert (folder / "train.weights").read_text() == "1\n2\n"


def test_a_joined_dictionary_counts_both_sides(tmp_path: Path) -> None:
    train = put(tmp_path, "train", english="a a both\n", german="both both x\n")
    folder = preprocess(tmp_path / "bin", "--trainpref", train, "--joined-dictionary", "--nwordssrc", 6)
    files = contents(folder)
    assert files["dict.en.txt"] == files["dict.de.txt"] == b"both 3\na 2\nmadeupword0000 0\nmadeupword0001 0\n"


def test_thresholds_and_sizes_are_each_sides_own(tmp_path: Path) -> None:
    train = put(tmp_path, "train")
    arguments = ("--trainpref", train, "--padding-factor", 1, "--dict-only")
    folder = preprocess(tmp_path / "bin", *arguments, "--thresholdsrc", 2, "--nwordstgt", 5)
    assert contents(folder) == {"dict.en.txt": b"a 3\nb 2\n", "dict.de.txt": b"x 3\n"}


def test_given_dictionaries_are_kept(tmp_path: Path) -> None:
    (tmp_path / "given.txt").write_text("b 7\na 5\n")
    arguments = ("--srcdict", tmp_path / "given.txt", "--tgtdict", tmp_path / "given.txt")
    folder = preprocess(tmp_path / "bin", "--testpref", put(tmp_path, "test"), *arguments)
    assert contents(folder)["dict.de.txt"] == b"b 7\na 5\n"
    assert IndexedCorpus(folder / "test.en-de.en")[0].tolist() == [5, 4, 5, 2]
    assert IndexedCorpus(folder / "test.en-de.de")[0].tolist() == [3, 2]


def test_source_alone_is_named_as_in_fairseq(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("a b a\n")
    arguments = ["--only-source", "--trainpref", str(tmp_path / "train.txt"), "--destdir", str(tmp_path / "bin")]
    assert main(arguments) == 0
    assert sorted(contents(tmp_path / "bin")) == ["dict.txt", "train.bin", "train.idx"]
    assert IndexedCorpus(tmp_path / "bin" / "train", vocabulary_size=8)[0].tolist() == [4, 5, 4, 2]


def test_sentencepiece_takes_plain_text_and_gives_it_back(tmp_path: Path) -> None:
    train = put(
        tmp_path, "train", "The dog, the fox.\nThe lazy dog jumps.\n" * 9, "Der Hund.\nDer Fuchs springt.\n" * 9
    )
    test = put(tmp_path, "test", "The lazy fox.\n", "Der Hund springt.\n")
    folder = preprocess(tmp_path / "bin", "--trainpref", train, "--testpref", test, "--sentencepiece", 60)
    files = contents(folder)
    assert {"sentencepiece.model", "sentencepiece.vocab"} < set(files)
    assert files["dict.en.txt"] == files["dict.de.txt"]
    dictionary = Dictionary.load(folder / "dict.en.txt")
    subwords = load_subwords(folder, "en", dictionary)
    assert subwords is not None
    pairs = open_pairs(folder, "test", ("en", "de"), (dictionary, dictionary))
    assert subwords.decode(dictionary.decode(pairs.source[0])) == "The lazy fox."
    assert subwords.decode(dictionary.decode(pairs.target[0])) == "Der Hund springt."

    again = preprocess(
        tmp_path / "more", "--testpref", test, "--sentencepiece-model", folder / "sentencepiece.model",
        "--srcdict", folder / "dict.en.txt", "--tgtdict", folder / "dict.de.txt",
    )  # fmt: skip
    shared = contents(again)
    assert shared == {name: files[name] for name in shared}


def write_tables(folder: Path, english: list[str], german: list[str]) -> dict[str, tuple[str, str]]:
    """The same text in every kind of table that can be read here: name → its two columns."""
    pairs = list(zip(english, german, strict=True))
    rows = [{"id": 1, "translation": {"en": a, "de": b}} for a, b in pairs]
    (folder / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (folder / "t.tsv").write_text("en\tde\n" + "".join(f"{a}\t{b}\n" for a, b in pairs), encoding="utf-8")
    tables = {"t.jsonl": ("translation.en", "translation.de"), "t.tsv": ("en", "de")}
    if importlib.util.find_spec("pyarrow") is not None:
        pyarrow, parquet = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
        parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "t.parquet", row_group_size=7)
        tables["t.parquet"] = ("translation.en", "translation.de")
    return tables


@pytest.mark.parametrize("subwords", [(), ("--sentencepiece", 40)])
def test_tables_give_the_bytes_of_two_files_of_lines(tmp_path: Path, subwords: tuple[object, ...]) -> None:
    english = ["a b\u2028 a", "", "größe  c", "der dog"] * 5
    german = ["x", "y x", "", "ß z"] * 5
    plain = put(tmp_path, "plain", *("".join(f"{line}\n" for line in side) for side in (english, german)))
    expected = contents(preprocess(tmp_path / "plain-bin", "--trainpref", plain, "--testpref", plain, *subwords))
    for name, (source, target) in write_tables(tmp_path, english, german).items():
        columns = ("--source-column", source, "--target-column", target)
        table = ("--trainpref", tmp_path / name, "--testpref", tmp_path / name)
        assert contents(preprocess(tmp_path / f"{name}-bin", *table, *columns, *subwords)) == expected


def test_a_column_alone_is_the_text_of_a_language_model(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("a b a\n\nb\n")
    (tmp_path / "train.jsonl").write_text('{"text": "a b a\\n"}\n{"text": ""}\n{"text": "b"}\n')
    for name, flags in (("train.txt", []), ("train.jsonl", ["--source-column", "text"])):
        arguments = ["--only-source", "--trainpref", str(tmp_path / name), "--destdir", str(tmp_path / f"{name}-bin")]
        assert main([*arguments, *flags]) == 0
    assert contents(tmp_path / "train.txt-bin") == contents(tmp_path / "train.jsonl-bin")


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


@pytest.mark.slow
def test_the_result_does_not_depend_on_the_number_of_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seqba.data.text.split_text.__defaults__", (200,))
    random = np.random.default_rng(1)
    lines = [" ".join(random.choice(list("abcdefghij"), 9)) for _ in range(150)]
    train = put(tmp_path, "train", "\n".join(lines), "\r\n".join(lines[::-1]))
    one = preprocess(tmp_path / "one", "--trainpref", train)
    two = preprocess(tmp_path / "two", "--trainpref", train, "--workers", 2)
    assert contents(one) == contents(two)
    name, (source, target) = write_tables(tmp_path, lines, lines[::-1]).popitem()
    columns = ("--source-column", source, "--target-column", target, "--workers", 2)
    assert contents(preprocess(tmp_path / "table", "--trainpref", tmp_path / name, *columns)) == contents(one)


def test_a_line_of_a_million_characters_is_a_line_like_others(tmp_path: Path) -> None:
    train = put(tmp_path, "train", "a " * 500_000 + "\nb\n" + "c" * 1_000_000 + "\n", GERMAN)
    folder = preprocess(tmp_path / "bin", "--trainpref", train)
    assert IndexedCorpus(folder / "train.en-de.en", vocabulary_size=8).sizes.tolist() == [500_001, 2, 2]


def test_the_log_is_kept_over_runs(tmp_path: Path) -> None:
    train = put(tmp_path, "train")
    folder = preprocess(tmp_path / "bin", "--trainpref", train)
    first = (folder / "preprocess.log").read_text()
    preprocess(folder, "--testpref", train, "--srcdict", folder / "dict.en.txt", "--tgtdict", folder / "dict.de.txt")
    log = (folder / "preprocess.log").read_text()
    assert log.startswith(first)
    assert len(log) > len(first)


def tree(folder: Path) -> dict[Path, bytes | None] | None:
    """Everything in a folder; None where there is none."""
    if not folder.exists():
        return None
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@contextmanager
def untouched(folder: Path) -> Iterator[None]:
    """Checks that a block changes nothing in a folder, nor makes it."""
    before = tree(folder)
    yield
    assert tree(folder) == before


def complaint(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line that a failing command prints."""
    capsys.readouterr()
    assert run(main, [str(argument) for argument in arguments]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    return lines[0]


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
