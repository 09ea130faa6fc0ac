"""seqba-interactive: lines in, translations out, in order, whatever the buffer."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from translation_world import World

from seqba.cli.command import run
from seqba.cli.generate import main as generate
from seqba.cli.interactive import main

CPU = ["--cpu", "--max-len-a", "1", "--max-len-b", "5"]


def interact(world: World, *flags: str) -> int:
    return run(main, [str(world.data), "--path", str(world.checkpoint), *CPU, *flags])


@pytest.fixture
def source(plain_world: World) -> str:
    return str(plain_world.folder / "test.en")


def without_times(output: str) -> str:
    return re.sub(r"^(W-\d+\t)\d+\.\d{3}\tseconds$", r"\1seconds", output, flags=re.MULTILINE)


def test_translations_are_generates(plain_world: World, source: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(generate, [str(plain_world.data), "--path", str(plain_world.checkpoint), *CPU]) == 0
    expected = dict(re.findall(r"^D-(\d+)\t\S+\t(.*)$", capsys.readouterr().out, re.MULTILINE))
    assert interact(plain_world, "--input", source, "--buffer-size", "5") == 0
    out = capsys.readouterr().out
    assert re.findall(r"^D-(\d+)\t\S+\t(.*)$", out, re.MULTILINE) == [
        (str(row), expected[str(row)]) for row in range(12)
    ]
    assert [line[0] for line in out.splitlines()] == list("SWHDP") * 12
    assert re.match(r"S-0\t▁.*\nW-0\t\d+\.\d{3}\tseconds\nH-0\t-?\d+\.\d+\t.*\nD-0\t-?\d+\.\d+\t.*\nP-0\t", out)


def test_buffers_and_batches_change_nothing(
    plain_world: World, source: str, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = []
    for flags in ((), ("--buffer-size", "100"), ("--buffer-size", "100", "--batch-size", "3")):
        assert interact(plain_world, "--input", source, *flags) == 0
        texts.append(re.findall(r"^[DS]-.*?\t([^\t]*)$", capsys.readouterr().out, re.MULTILINE))
    assert texts[0] == texts[1] == texts[2]


def test_standard_input_and_empty_lines(
    plain_world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = b"One two.\n\n   \nThree."
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(lines)))
    assert interact(plain_world, "--buffer-size", "3", "--beam", "2", "--nbest", "2") == 0
    out = without_times(capsys.readouterr().out)
    assert "S-1\t\nW-1\tseconds\nH-1\t0.0\t\nD-1\t0.0\t\nP-1\t\nH-1" in out
    assert re.findall(r"^H-(\d)", out, re.MULTILINE) == list("00112233")


def test_no_line_at_all(
    plain_world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"")))
    assert interact(plain_world) == 0
    assert capsys.readouterr().out == ""


def test_tokens_in_tokens_out(token_world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in").write_text("one fo@@ ur never-seen .\n", encoding="utf-8")
    assert interact(token_world, "--input", str(tmp_path / "in"), "--remove-bpe") == 0
    out = capsys.readouterr().out
    assert out.startswith("S-0\tone four <unk> .\n")
    assert "@@" not in out


def test_plain_text_in_and_out_by_moses_and_byte_pairs(
    token_world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    merges = ["o n", "on e</w>", "f o", "u r</w>"]
    (tmp_path / "codes").write_text("\n".join(["#version: 0.2", *merges]) + "\n", encoding="utf-8")
    (tmp_path / "tokens").write_text("one fo@@ ur .\n", encoding="utf-8")
    (tmp_path / "plain").write_text("one four.\n", encoding="utf-8")
    assert interact(token_world, "--input", str(tmp_path / "tokens")) == 0
    expected = without_times(capsys.readouterr().out).splitlines()
    tools = ["--tokenizer", "moses", "--bpe", "subword_nmt", "--bpe-codes", str(tmp_path / "codes")]
    assert interact(token_world, "--input", str(tmp_path / "plain"), *tools) == 0
    found = without_times(capsys.readouterr().out).splitlines()
    assert found[0] == "S-0\tone fo@@ ur ."
    assert found[:3] + found[4:] == expected[:3] + expected[4:]  # all but the D- line
    words = expected[3].replace("@@ ", "").replace(" .", ".")
    assert found[3] == words


def test_no_result_depends_on_what_is_taken_without_effect(
    plain_world: World, source: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert interact(plain_world, "--input", source) == 0
    expected = without_times(capsys.readouterr().out)
    flags = ["--num-workers", "2", "--required-batch-size-multiple", "4", "--no-progress-bar", "--log-format", "none"]
    assert interact(plain_world, "--input", source, *flags) == 0
    captured = capsys.readouterr()
    assert without_times(captured.out) == expected
    named = "--num-workers, --required-batch-size-multiple, --no-progress-bar, --log-format"
    assert captured.err == f"warning: accepted and without effect here: {named} (docs/fairseq.md says why)\n"


def test_long_lines(plain_world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in").write_text("One.\n" + "one " * 250_000 + "\nTwo.\n", encoding="utf-8")
    flags = ("--input", str(tmp_path / "in"), "--buffer-size", "2")
    assert interact(plain_world, *flags) == 2
    captured = capsys.readouterr()
    assert re.fullmatch(r"error: line 2 of the input is \d+ tokens long; 40 is the most: cut it, .*\n", captured.err)
    assert interact(plain_world, *flags, "--skip-invalid-size-inputs-valid-test") == 0
    captured = capsys.readouterr()
    assert captured.err.startswith("warning: line 2 ")
    assert re.findall(r"^D-(\d)", captured.out, re.MULTILINE) == ["0", "2"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--input", "nowhere"], "input nowhere does not exist"),
        (["--batch-size", "4", "--buffer-size", "3"], "--batch-size 4 is more than --buffer-size 3"),
        (["--gen-subset", "test"], "seqba-generate translates a split"),
        (["--replace-unk"], "--replace-unk is not an option here"),
    ],
)
def test_mistakes(plain_world: World, flags: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert interact(plain_world, *flags) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1


def test_lines_that_are_not_text(plain_world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in").write_bytes(b"One.\n\xe9t\xe9\n")
    assert interact(plain_world, "--input", str(tmp_path / "in")) == 2
    captured = capsys.readouterr()
    assert "line 2: byte 0xe9 is not UTF-8" in captured.err
    assert "D-0\t" in captured.out  # what came before it has been translated
