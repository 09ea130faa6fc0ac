"""seqba-score: three numbers in one call, and each of them alone."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import sacrebleu

from seqba.cli.command import run
from seqba.cli.score import main

HYPOTHESES = "the cat sat on the mat .\na well-known dog barks , loudly .\n"
REFERENCES = "the cat is on the mat .\nthe well-known dog barks loudly .\n"


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    for name, text in (("sys", HYPOTHESES), ("ref", REFERENCES)):
        (tmp_path / name).write_text(text, encoding="utf-8")
    return ["--sys", str(tmp_path / "sys"), "--ref", str(tmp_path / "ref")]


def test_three_numbers(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(main, files) == 0
    captured = capsys.readouterr()
    tokens, split, sacre = captured.out.splitlines()
    pairs = HYPOTHESES.splitlines(), [REFERENCES.splitlines()]
    expected = sacrebleu.corpus_bleu(*pairs, tokenize="none", smooth_method="none", force=True)
    assert tokens.startswith(f"BLEU4 = {expected.score:.2f}, ")
    assert tokens.endswith(f"syslen={expected.sys_len}, reflen={expected.ref_len})")
    assert split.startswith("Compound-split BLEU4 = ")
    assert f"reflen={expected.ref_len + 2}" in split
    assert sacre.startswith("sacreBLEU BLEU|nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:")
    assert f" = {sacrebleu.corpus_bleu(*pairs, force=True).score:.2f} " in sacre
    assert "looks like tokenised text" in captured.err


def test_by_hand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, text in (("sys", HYPOTHESES), ("ref", REFERENCES)):
        (tmp_path / name).write_text(text.splitlines()[0], encoding="utf-8")
    assert run(main, ["-s", str(tmp_path / "sys"), "-r", str(tmp_path / "ref"), "-o", "2"]) == 0
    # 6/7 and 4/6: their geometric mean is 0.7559.
    expected = "BLEU2 = 75.59, 85.7/66.7 (BP=1.000, ratio=1.000, syslen=7, reflen=7)"
    assert capsys.readouterr().out.splitlines()[0] == expected


def test_sacrebleu_alone(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(main, [*files, "--sacrebleu", "--ignore-case"]) == 0
    [line] = capsys.readouterr().out.splitlines()
    assert line.startswith("BLEU|nrefs:1|case:lc|")


def test_sentences(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(main, [*files, "--sentence-bleu"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    # 6/7, then (4+1)/(6+1), (2+1)/(5+1), (1+1)/(4+1).
    assert first == "0 BLEU4 = 59.15, 85.7/71.4/50.0/40.0 (BP=1.000, ratio=1.000, syslen=7, reflen=7)"
    assert second.startswith("1 BLEU4 = ")


def test_plain_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "ref").write_text("A well-known dog, barks.\nIt does.\n", encoding="utf-8")
    arguments = ["-s", str(tmp_path / "ref"), "-r", str(tmp_path / "ref")]
    assert run(main, arguments) == 0
    captured = capsys.readouterr()
    assert "reflen=6)" in captured.out.splitlines()[0]
    assert "give tokenised text, or --tokenize 13a" in captured.err
    assert run(main, [*arguments, "--tokenize", "13a"]) == 0
    captured = capsys.readouterr()
    assert "reflen=9)" in captured.out.splitlines()[0]
    assert "reflen=11)" in captured.out.splitlines()[1]
    assert captured.err == ""


def test_standard_input(files: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run(main, files)
    expected = capsys.readouterr().out
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(HYPOTHESES.encode())))
    assert run(main, files[2:]) == 0
    assert capsys.readouterr().out == expected
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"fine\nno\xff\n")))
    assert run(main, files[2:]) == 2
    assert "standard input, line 2: byte 0xff is not UTF-8" in capsys.readouterr().err


def test_metrics_are_sacrebleus(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(main, [*files, "--metrics", "chrf,ter,bleu", "--ignore-case"]) == 0
    chrf, ter, bleu = capsys.readouterr().out.splitlines()
    pairs = HYPOTHESES.splitlines(), [REFERENCES.splitlines()]
    assert chrf.startswith("chrF2|nrefs:1|case:lc|")
    assert chrf.endswith(f" = {sacrebleu.corpus_chrf(*pairs).score:.2f}")
    assert ter.startswith("TER|nrefs:1|case:lc|")
    assert ter.endswith(f" = {sacrebleu.corpus_ter(*pairs).score:.2f}")
    assert f" = {sacrebleu.corpus_bleu(*pairs, force=True).score:.2f} " in bleu


def test_case_counts_where_it_counts_in_sacrebleus_own_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hypotheses, references = ["The Dog barks Loudly", "it DOES so"], ["the dog barks loudly now", "It does so"]
    for name, lines in (("sys", hypotheses), ("ref", references)):
        (tmp_path / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    arguments = ["--sys", str(tmp_path / "sys"), "--ref", str(tmp_path / "ref"), "--metrics", "bleu,chrf,ter"]
    assert run(main, arguments) == 0
    bleu, chrf, ter = capsys.readouterr().out.splitlines()
    assert f" = {sacrebleu.corpus_bleu(hypotheses, [references]).score:.2f} " in bleu
    assert chrf.endswith(f" = {sacrebleu.corpus_chrf(hypotheses, [references]).score:.2f}")
    assert ter.endswith(f" = {sacrebleu.corpus_ter(hypotheses, [references]).score:.2f}")
    assert ter.startswith("TER|nrefs:1|case:lc|")


@pytest.mark.parametrize("more", [[], ["--metrics", "chrf"], ["--sentence-bleu"]])
def test_scores_of_subwords_are_told(more: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for text, is_told in (("a dog bar@@ ks .", True), ("▁A ▁dog ▁bark s .", True), ("a dog barks .", False)):
        (tmp_path / "text").write_text(f"{text}\n", encoding="utf-8")
        assert run(main, ["--sys", str(tmp_path / "text"), "--ref", str(tmp_path / "text"), *more]) == 0
        assert ("warning: scores are of subwords, not words" in capsys.readouterr().err) is is_told


def test_intervals_are_the_same_every_time(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    lines = []
    for _ in range(2):
        assert run(main, [*files, "--metrics", "chrf", "--bootstrap", "100"]) == 0
        lines.append(capsys.readouterr().out)
    assert "|bs:100|seed:12345|" in lines[0]
    assert "±" in lines[0]
    assert lines[0] == lines[1]


def test_a_better_system_is_told_from_an_equal_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["the", "cat", "sat", "on", "a", "mat", "and", "slept", "until", "noon"]
    texts: dict[str, list[str]] = {"ref": [], "good": [], "bad": [], "twin": []}
    for line in range(40):
        pair = line // 2
        sentence = words[pair % 3 :] + words[: pair % 4]
        texts["ref"].append(" ".join(sentence))
        texts["good"].append(" ".join(sentence[line % 2 :]))
        texts["bad"].append(" ".join(["not", "this", *sentence[4:]]))
        texts["twin"].append(" ".join(sentence[1 - line % 2 :]))  # the faults of good, in the other line of each pair
    for name, lines in texts.items():
        (tmp_path / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    told = {}
    for other in ("bad", "twin"):
        flags = ["--compare", str(tmp_path / other), "--metrics", "bleu,chrf", "--bootstrap", "300"]
        assert run(main, ["--sys", str(tmp_path / "good"), "--ref", str(tmp_path / "ref"), *flags]) == 0
        bleu, chrf, last = capsys.readouterr().out.splitlines()
        assert last.startswith("paired bootstrap of 40 sentences, 300 resamples")
        assert f"{tmp_path / 'good'} " in bleu
        assert f"{tmp_path / other} " in chrf
        told[other] = [float(line.rpartition("p = ")[2]) for line in (bleu, chrf)]
    assert max(told["bad"]) < 0.01
    assert told["twin"][0] > 0.05


def test_equal_translations_differ_by_chance_and_one_sentence_tells_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """sacreBLEU's own p-value of both is 1 / (resamples + 1), as of the clearest difference."""
    for name, text in {"ref": "a cat sat on a mat\n", "one": "a cat sat on a\n", "other": "the dog\n"}.items():
        (tmp_path / name).write_text(text * 3, encoding="utf-8")
        (tmp_path / f"{name}.first").write_text(text, encoding="utf-8")

    def compare(one: str, other: str, ref: str) -> int:
        files = ["--sys", str(tmp_path / one), "--ref", str(tmp_path / ref), "--compare", str(tmp_path / other)]
        return run(main, [*files, "--metrics", "bleu,chrf", "--bootstrap", "100"])

    assert compare("one", "one", "ref") == 0
    assert capsys.readouterr().out.count("p = 1.0000") == 2
    assert compare("one.first", "other.first", "ref.first") == 2
    assert "one sentence can't be resampled" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--ref", "nowhere"], "references nowhere does not exist"),
        (["--sys", "nowhere"], "translations nowhere does not exist"),
        (["--order", "0"], "--order is 0; it must be at least 1"),
        (["--sacrebleu", "--order", "3"], "--sacrebleu fixes tokens and order"),
        (["--tokenize", "moses"], "13a"),
        (["--sys", "-", "--ref", "-"], "cannot both be standard input"),
        (["--metrics", "bleu,rouge"], "--metrics is 'bleu,rouge': give one or more of bleu, chrf, ter"),
        (["--metrics", " , "], "give one or more of bleu, chrf, ter"),
        (["--bootstrap", "200"], "--bootstrap is for --metrics and --compare"),
        (["--metrics", "ter", "--sentence-bleu"], "--metrics and --compare fix tokens and order"),
        (["--compare", "nowhere"], "translations nowhere does not exist"),
    ],
)
def test_mistakes(files: list[str], flags: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(main, [*files, *flags]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_files_that_do_not_match(files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "short").write_text("one line\n", encoding="utf-8")
    assert run(main, [*files, "--sys", str(tmp_path / "short")]) == 2
    assert "short has 1 lines and" in capsys.readouterr().err
    (tmp_path / "empty").write_text("", encoding="utf-8")
    empty = str(tmp_path / "empty")
    assert run(main, ["--sys", empty, "--ref", empty]) == 2
    assert "is empty: there is nothing to score" in capsys.readouterr().err
    assert run(main, ["--sys", empty]) == 2
    assert "--ref is missing" in capsys.readouterr().err
