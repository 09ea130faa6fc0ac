"""Text files and names of every kind mean the same in every command."""

from __future__ import annotations

import gzip
import io
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from byte_fallback import byte_fallback_model
from translation_world import World

from seqba.cli.average_checkpoints import main as average
from seqba.cli.command import Main, run
from seqba.cli.eval_image import main as evaluate
from seqba.cli.generate import main as generate
from seqba.cli.interactive import main as interact
from seqba.cli.preprocess import main as preprocess
from seqba.cli.score import main as score
from seqba.cli.train import main as train

MARK = b"\xef\xbb\xbf"
BRIEF = ["--cpu", "--beam", "1", "--max-len-a", "1", "--max-len-b", "3"]


def make_bin(folder: Path, name: str, *flags: str) -> dict[str, bytes]:
    """Preprocesses NAME.en and NAME.de of a folder; the data-bin's files."""
    prefix = str(folder / name)
    made = folder / f"{name}-bin"
    assert run(preprocess, ["-s", "en", "-t", "de", "--trainpref", prefix, "--destdir", str(made), *flags]) == 0
    return {path.name: path.read_bytes() for path in made.iterdir() if path.name != "preprocess.log"}


@pytest.mark.parametrize("flags", [[], ["--sentencepiece", "20"]])
def test_a_byte_order_mark_changes_no_data_bin(tmp_path: Path, flags: list[str]) -> None:
    text = b"a cat\na dog\r\na cow\n" * 20
    for name, mark in (("clean", b""), ("marked", MARK)):
        for language in ("en", "de"):
            (tmp_path / f"{name}.{language}").write_bytes(mark + text)
    clean = make_bin(tmp_path, "clean", *flags)
    assert make_bin(tmp_path, "marked", *flags) == clean
    if not flags:
        (tmp_path / "dict.txt").write_bytes(MARK + clean["dict.en.txt"])
        given = ["--srcdict", str(tmp_path / "dict.txt"), "--tgtdict", str(tmp_path / "dict.txt")]
        (tmp_path / "marked-bin").rename(tmp_path / "before")
        assert make_bin(tmp_path, "marked", *given) == clean


def test_a_byte_order_mark_changes_no_translation(
    token_world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [str(token_world.data), "--path", str(token_world.checkpoint), *BRIEF]
    told = []
    for mark in (b"", MARK):
        (tmp_path / "in").write_bytes(mark + b"one two .\nthree .\n")
        assert run(interact, [*command, "--input", str(tmp_path / "in")]) == 0
        told.append(re.sub(r"W-.*", "", capsys.readouterr().out))
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO((tmp_path / "in").read_bytes())))
        assert run(interact, command) == 0
        told.append(re.sub(r"W-.*", "", capsys.readouterr().out))
    assert told[0].startswith("S-0\tone two .\n")
    assert told == told[:1] * 4


def test_a_byte_order_mark_changes_no_score(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = b"a cat sat here now\n"
    (tmp_path / "clean").write_bytes(line)
    (tmp_path / "marked").write_bytes(MARK + line)
    for system, reference in (("clean", "marked"), ("marked", "clean"), ("marked", "marked"), ("-", "clean")):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(MARK + line)))
        names = [name if name == "-" else str(tmp_path / name) for name in (system, reference)]
        assert run(score, ["--sys", names[0], "--ref", names[1]]) == 0
        assert capsys.readouterr().out.startswith("BLEU4 = 100.00")


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        ("a\n".encode("utf-16"), "UTF-16 text"),
        (gzip.compress(b"a\n", mtime=0), "a gzip file"),
        (b"\x89PNG\r\n", "a PNG picture"),
    ],
)
def test_no_text_is_called_that_first(
    token_world: World, tmp_path: Path, content: bytes, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    odd, fine = tmp_path / "t.en", tmp_path / "t.de"
    odd.write_bytes(content)
    fine.write_text("a\n" * 7, encoding="utf-8")
    texts = ["-s", "en", "-t", "de", "--trainpref", str(tmp_path / "t"), "--destdir", str(tmp_path / "bin")]
    turned = ["-s", "de", "-t", "en", *texts[4:]]
    words = [*texts, "--trainpref", str(tmp_path / "f"), "--srcdict", str(odd)]
    for language in ("en", "de"):
        (tmp_path / f"f.{language}").write_text("a\n", encoding="utf-8")
    model = [str(token_world.data), "--path", str(token_world.checkpoint), "--cpu", "--input", str(odd)]
    commands: list[tuple[Main, Sequence[str]]] = [
        (preprocess, texts),
        (preprocess, turned),
        (preprocess, words),
        (score, ["--sys", str(odd), "--ref", str(fine)]),
        (score, ["--sys", str(fine), "--ref", str(odd)]),
        (interact, model),
    ]
    for main, arguments in commands:
        assert run(main, arguments) == 2
        assert f"t.en is {kind}, not UTF-8 text: " in capsys.readouterr().err


@pytest.mark.parametrize("end", [b"", b"\n", b"\r", b"\n\n\n"])
def test_every_command_counts_the_same_lines(
    token_world: World, tmp_path: Path, end: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "one\rtwo\r\nthree\x0bfour\x0cfive\x1csix\x85one\u2028two\u2029three\n\nfour\n\r".encode() + b"one" + end
    for language in ("en", "de"):
        (tmp_path / f"t.{language}").write_bytes(text)
    count = len(list(io.TextIOWrapper(io.BytesIO(text), encoding="utf-8")))
    make_bin(tmp_path, "t")
    assert f"t.en: {count} sents" in capsys.readouterr().out
    model = [str(token_world.data), "--path", str(token_world.checkpoint), *BRIEF]
    assert run(interact, [*model, "--input", str(tmp_path / "t.en")]) == 0
    assert capsys.readouterr().out.count("\nP-") == count
    (tmp_path / "none").write_bytes(b"")
    assert run(score, ["--sys", str(tmp_path / "t.en"), "--ref", str(tmp_path / "none")]) == 2
    assert f"t.en has {count} lines and" in capsys.readouterr().err


def test_negative_counts_change_nothing(token_world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "bin"
    shutil.copytree(token_world.data, data)
    for language in ("en", "de"):
        path = data / f"dict.{language}.txt"
        path.write_text(re.sub(r" (\d+)$", r" -\1", path.read_text(encoding="utf-8"), flags=re.M), encoding="utf-8")
    told = []
    for folder in (token_world.data, data):
        command = [str(folder), "--path", str(token_world.checkpoint), *BRIEF]
        assert run(generate, command) == 0
        assert run(interact, [*command, "--input", str(token_world.folder / "test.en")]) == 0
        told.append(re.sub(r"W-.*", "", capsys.readouterr().out))
    assert told[0] == told[1]
    texts = ["--trainpref", str(token_world.folder / "train"), "--destdir", str(tmp_path / "again")]
    given = ["--srcdict", str(data / "dict.en.txt"), "--tgtdict", str(data / "dict.de.txt")]
    assert run(preprocess, ["-s", "en", "-t", "de", *texts, *given]) == 0
    assert (tmp_path / "again" / "train.en-de.en.bin").read_bytes() == (data / "train.en-de.en.bin").read_bytes()
    dictionary = (tmp_path / "again" / "dict.en.txt").read_text(encoding="utf-8")
    assert dictionary == (data / "dict.en.txt").read_text(encoding="utf-8").replace(" -0\n", " 0\n")
    rates = ["--max-tokens", "60", "--lr", "0.1", "--max-update", "1", "--cpu", "--valid-subset", "test"]
    assert run(train, [str(data), "--save-dir", str(tmp_path / "m"), "--arch", "transformer_tiny", *rates]) == 0


@pytest.fixture(scope="module")
def byte_world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A data-bin whose SentencePiece model spells the characters that it doesn't know in bytes."""
    folder = tmp_path_factory.mktemp("bytes")
    (folder / "bytes.model").write_bytes(byte_fallback_model())
    for split in ("train", "test"):
        for language in ("en", "de"):
            (folder / f"{split}.{language}").write_text("the ☃ is small .\n☃ a<0xE2>\n", encoding="utf-8")
    flags = ["--sentencepiece-model", str(folder / "bytes.model"), "--joined-dictionary", "--destdir"]
    prefixes = ["--trainpref", str(folder / "train"), "--testpref", str(folder / "test")]
    assert run(preprocess, ["-s", "en", "-t", "de", *prefixes, *flags, str(folder / "bin")]) == 0
    world = World(folder, folder / "bin", folder / "model.pt")
    world.write_checkpoint("model.pt", seed=1)
    return world


@pytest.mark.parametrize("flags", [[], ["--remove-bpe", "sentencepiece"]])
def test_bytes_are_text_in_every_line(byte_world: World, flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    command = [str(byte_world.data), "--path", str(byte_world.checkpoint), *BRIEF, *flags]
    assert run(generate, command) == 0
    out = capsys.readouterr().out
    for kind in "ST":
        lines = dict(re.findall(rf"^{kind}-(\d)\t(.*)$", out, re.MULTILINE))
        assert lines == {"0": "the ☃ is small .", "1": "☃ a<0xE2>"}
    spelt = [line for line in out.splitlines() if re.match("[STD]-", line) and "<0x" in line.replace("a<0xE2>", "")]
    assert spelt == []
    assert run(interact, [*command, "--input", str(byte_world.folder / "test.en")]) == 0
    source = re.findall(r"^S-0\t(.*)$", capsys.readouterr().out, re.MULTILINE)
    assert source == ["the ☃ is small ." if flags else "▁the ▁ ☃ ▁is ▁small ▁."]


def test_scored_references_are_decoded(byte_world: World, capsys: pytest.CaptureFixture[str]) -> None:
    command = [str(byte_world.data), "--path", str(byte_world.checkpoint), "--cpu", "--score-reference"]
    assert run(generate, command) == 0
    assert re.findall(r"^D-0\t\S+\t(.*)$", capsys.readouterr().out, re.MULTILINE) == ["the ☃ is small ."]


ODD = b"caf\xe9 \xff\xc3\xbc"
"""A name that is not UTF-8, with a blank, and an umlaut that is."""


def test_names_that_are_not_utf8(token_world: World, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    folder = os.path.join(str(tmp_path), os.fsdecode(ODD))
    os.mkdir(folder)
    text = Path(folder) / os.fsdecode(b"\xfc.en")
    prefix = str(text)[: -len(".en")]
    for language in ("en", "de"):
        Path(f"{prefix}.{language}").write_text("one two .\nthree .\n", encoding="utf-8")
    checkpoint = Path(folder) / os.fsdecode(b"m\xe9.pt")
    checkpoint.write_bytes(token_world.checkpoint.read_bytes())
    made = f"{folder}/bin"
    commands: list[tuple[Main, Sequence[str]]] = [
        (preprocess, ["-s", "en", "-t", "de", "--trainpref", prefix, "--validpref", prefix, "--destdir", made]),
        (train, [made, "--save-dir", f"{folder}/save", "--arch", "transformer_tiny", "--max-tokens", "50",
                 "--lr", "0.1", "--max-update", "1", "--cpu", "--log-file", f"{folder}/log"]),
        (average, ["--inputs", str(checkpoint), "--output", f"{folder}/mean.pt"]),
        (generate, [str(token_world.data), "--path", str(checkpoint), *BRIEF, "--results-path", f"{folder}/res"]),
        (interact, [str(token_world.data), "--path", str(checkpoint), *BRIEF, "--input", str(text)]),
        (score, ["--sys", str(text), "--ref", f"{prefix}.de"]),
    ]  # fmt: skip
    for main, arguments in commands:
        assert run(main, arguments) == 0, capfdbinary.readouterr().err
    out = capfdbinary.readouterr().out  # bytes that pytest itself couldn't read, should a line below fail
    assert f"{folder}/mean.pt".encode("utf-8", "surrogateescape") in out
    log = Path(made, "preprocess.log").read_text(encoding="utf-8")
    assert r"caf\xe9 \xffü/\xfc', weights=" in log
    assert r"caf\xe9 \xffü/\xfc.en: 2 sents" in log


@pytest.mark.parametrize(
    ("main", "arguments"),
    [
        (preprocess, ["-s", "en", "-t", "de", "--trainpref", "ODD", "--destdir", "bin"]),
        (train, ["ODD", "--max-tokens", "9", "--lr", "1", "--lr-scheduler", "fixed"]),
        (train, ["x", "--arch", "ODD"]),
        (train, ["x", "--ODD"]),
        (train, ["ODD", "--task", "image_classification", "--lr", "1", "--batch-size", "2"]),
        (generate, ["x", "--path", "ODD"]),
        (generate, ["x", "--path", "y", "--model-overrides", "ODD"]),
        (interact, ["x", "--path", "ODD"]),
        (score, ["--sys", "ODD", "--ref", "ODD"]),
        (average, ["--inputs", "ODD", "--output", "x"]),
        (evaluate, ["ODD", "--path", "ODD"]),
    ],
)
def test_messages_show_names_as_they_were_given(
    main: Main,
    arguments: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfdbinary: pytest.CaptureFixture[bytes],
) -> None:
    monkeypatch.chdir(tmp_path)
    name = b".//" + ODD + b"  \\x"
    assert run(main, [part.replace("ODD", os.fsdecode(name)) for part in arguments]) == 2
    told = capfdbinary.readouterr().err
    assert told.startswith(b"error: ")
    assert name in told
    assert told.count(b"\n") == 1


def test_pictures_in_folders_that_are_not_utf8(tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    image = pytest.importorskip("PIL.Image")
    for split in (b"train", b"v\xe4l"):
        for name in (b"cat", b"d\xfcne"):
            folder = os.path.join(str(tmp_path), "pics", os.fsdecode(split), os.fsdecode(name))
            os.makedirs(folder)
            for number in range(2):
                pixels = np.full((32, 32, 3), 40 * number, np.uint8)
                image.fromarray(pixels).save(os.path.join(folder, os.fsdecode(b"\xff%d.png" % number)))
    data, subset = str(tmp_path / "pics"), os.fsdecode(b"v\xe4l")
    flags = ["--task", "image_classification", "--augmentation", "none", "--arch", "resnet8", "--batch-size", "2"]
    rates = ["--optimizer", "sgd", "--lr", "0.01", "--max-update", "1", "--valid-subset", subset, "--cpu"]
    assert run(train, [data, *flags, *rates, "--save-dir", str(tmp_path / "m"), "--num-workers", "0"]) == 0
    capfdbinary.readouterr()
    path = str(tmp_path / "m" / "checkpoint_last.pt")
    shown = ["--gen-subset", subset, "--output-predictions", "--cpu", "--num-workers", "0"]
    assert run(evaluate, [data, "--path", path, *shown]) == 0
    assert b"2\td\xfcne\t" in capfdbinary.readouterr().out
