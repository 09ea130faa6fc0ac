"""A tokenizer.json from text to translations: what the library splits and joins is what the commands print."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

pytest.importorskip("tokenizers", reason="pip install -e .[tokenizers]")

import tokenizers
from reversal import SMALL_MODEL
from toy_tokenizers import TEXT, write_tokenizer

from seqba.cli.command import run
from seqba.cli.export import main as export
from seqba.cli.generate import main as generate
from seqba.cli.interactive import main as interactive
from seqba.cli.preprocess import main as preprocess
from seqba.cli.train import main as train
from seqba.data.dictionary import Dictionary

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer, texts, a data-bin and a checkpoint of a few updates; read only."""
    folder = tmp_path_factory.mktemp("tokenizers")
    write_tokenizer(folder / "tokenizer.json")
    rows = "".join(json.dumps({"en": line, "de": line[::-1]}) + "\n" for line in TEXT * 4)
    (folder / "text.jsonl").write_text(rows, encoding="utf-8")
    text = str(folder / "text.jsonl")
    arguments = ["-s", "en", "-t", "de", "--source-column", "en", "--target-column", "de", "--trainpref", text]
    more = ["--validpref", text, "--destdir", str(folder / "bin"), "--joined-dictionary"]
    assert preprocess([*arguments, *more, "--tokenizer-json", str(folder / "tokenizer.json")]) == 0
    options = ["--save-dir", str(folder / "run"), "--cpu", *SMALL_MODEL, "--max-tokens", "400", "--lr", "0.01"]
    measured = ["--eval-bleu", "--eval-bleu-print-samples", "--max-update", "3", "--copies", "2"]
    assert train([str(folder / "bin"), *options, *measured]) == 0
    return folder


def printed(output: str, kind: str) -> dict[str, str]:
    """Last field of the lines of a kind, by their number."""
    rows = [line.split("\t") for line in output.splitlines() if line.startswith(f"{kind}-")]
    return {row[0][2:]: row[-1] for row in rows}


def test_both_dictionaries_are_the_vocabulary(world: Path) -> None:
    library = tokenizers.Tokenizer.from_file(str(world / "tokenizer.json"))
    english, german = (Dictionary.load(world / "bin" / f"dict.{language}.txt") for language in ("en", "de"))
    assert english == german
    assert set(library.get_vocab()) <= set(english.symbols)
    assert (world / "bin" / "tokenizer.json").read_bytes() == (world / "tokenizer.json").read_bytes()


@pytest.mark.parametrize("more", [[], ["--bpe", "tokenizers"]])
def test_translations_are_joined_by_the_library(
    more: list[str], world: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    library = tokenizers.Tokenizer.from_file(str(world / "tokenizer.json"))
    common = [str(world / "bin"), "--path", str(world / "run" / "checkpoint_last.pt"), "--cpu", "--beam", "2", *more]
    assert generate([*common, "--gen-subset", "valid"]) == 0
    generated = capsys.readouterr().out
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("".join(f"{line}\n" for line in TEXT).encode())))
    assert interactive(common) == 0
    for output in (generated, capsys.readouterr().out):
        tokens, plain = printed(output, "H"), printed(output, "D")
        assert len(plain) >= len(TEXT)
        for number, line in plain.items():
            ids = [library.token_to_id(token) for token in tokens[number].split(" ") if token]
            assert line == library.decode(ids, skip_special_tokens=False)
    assert set(printed(generated, "T").values()) == {line[::-1] for line in TEXT}


def test_a_tokenizer_beside_a_data_bin_is_named(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--bpe", "tokenizers", "--tokenizer-json", str(world / "tokenizer.json")]
    common = [str(world / "bin"), "--path", str(world / "run" / "checkpoint_last.pt"), "--cpu", "--gen-subset", "valid"]
    assert generate([*common, "--beam", "2", *given]) == 0
    named = printed(capsys.readouterr().out, "D")
    assert generate([*common, "--beam", "2"]) == 0
    assert printed(capsys.readouterr().out, "D") == named
    for more, message in (
        (given[2:], "--tokenizer-json belongs to --bpe tokenizers, which isn't given"),
        (["--bpe", "sentencepiece"], "has no model of its own, so give it as --sentencepiece-model"),
        ([*given[:3], str(tmp_path / "absent")], "tokenizer {0}/absent does not exist"),
        ([*given[:3], str(world / "text.jsonl")], "text.jsonl is no tokenizer of Hugging Face's tokenizers"),
    ):
        assert run(generate, [*common, *more]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert message.format(tmp_path) in line


def test_marian_needs_sentencepiece(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = str(world / "run" / "checkpoint_last.pt")
    given = [checkpoint, "--to", "transformers", "--data", str(world / "bin"), "--output", str(tmp_path / "out")]
    assert run(export, given) == 2
    assert "has a tokenizer.json, and Marian's tokenizer needs a sentencepiece.model" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--tokenizer-json", "T", "--sentencepiece", "60"], "--tokenizer-json brings its own vocabulary"),
        (["--tokenizer-json", "T", "--nwordssrc", "60"], "--tokenizer-json brings its own vocabulary"),
        (["--tokenizer-json", "T", "--from-model", "M"], "leave out the options that make or name others"),
        (["--tokenizer-json", "absent"], "tokenizer absent does not exist"),
        ([], "dict.en.txt exists and is not overwritten"),
        (["--srcdict", "D", "--tgtdict", "D"], "holds a tokenizer: give it as --tokenizer-json"),
        (["--tokenizer-json", "O"], "dict.en.txt exists and is not overwritten"),
    ],
)
def test_mistakes_are_one_line(
    more: list[str], message: str, world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write_tokenizer(tmp_path / "other.json", "unigram")
    places = {"T": world / "tokenizer.json", "O": other, "D": world / "bin" / "dict.en.txt"}
    text = ["--source-column", "en", "--target-column", "de", "--trainpref", str(world / "text.jsonl")]
    words = [str(places.get(word, word)) for word in more]
    assert run(preprocess, ["-s", "en", "-t", "de", *text, "--destdir", str(world / "bin"), *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_more_text_joins_a_data_bin_with_its_own_tokenizer(world: Path, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(f"{TEXT[0]}\n", encoding="utf-8")
    common = ["--only-source", "--destdir", str(tmp_path / "bin"), "--tokenizer-json"]
    assert preprocess([*common, str(world / "tokenizer.json"), "--trainpref", str(tmp_path / "text.txt")]) == 0
    own = str(tmp_path / "bin" / "tokenizer.json")
    assert preprocess([*common, own, "--testpref", str(tmp_path / "text.txt")]) == 0
    assert (tmp_path / "bin" / "test.bin").read_bytes() == (tmp_path / "bin" / "train.bin").read_bytes()
