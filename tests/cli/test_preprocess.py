"""seqba-preprocess: the bytes that fairseq-preprocess writes, and one line for everything that is wrong."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from preprocessing import GERMAN, complaint, preprocess, put, untouched

from seqba.cli.preprocess import main
from seqba.data.dictionary import Dictionary
from seqba.data.indexed import IndexedCorpus
from seqba.data.pair_files import open_pairs
from seqba.data.subwords import load_subwords


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
