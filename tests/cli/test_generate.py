"""seqba-generate: fairseq's lines, their order and their numbers; what it refuses."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import sacrebleu
import torch
from preloaded import preloaded
from translation_world import LIMITS, World, generate

from seqba.cli.command import run
from seqba.cli.generate import main
from seqba.cli.preprocess import main as preprocess
from seqba.nn.kernels.quantized import can_quantize


def grouped(output: str) -> dict[str, dict[int, list[list[str]]]]:
    """{"H": {sentence: [columns, …]}, …} of the S-, T-, H-, D- and P- lines."""
    found: dict[str, dict[int, list[list[str]]]] = {}
    for line in output.splitlines():
        if match := re.match(r"([STHDP])-(\d+)\t(.*)", line):
            found.setdefault(match[1], {}).setdefault(int(match[2]), []).append(match[3].split("\t"))
    return found


def test_lines_are_fairseqs(plain_world: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert generate(plain_world, "--beam", "3", "--nbest", "2", "--lenpen", "0.6") == 0
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    kinds = [line[0] for line in lines[:-2]]
    assert kinds == list("STHDPHDP") * 12
    found = grouped(captured.out)
    assert [found["S"][row][0][0] for row in range(12)] == plain_world.text("en")
    assert [found["T"][row][0][0] for row in range(12)] == plain_world.text("de")
    for row in range(12):
        for (score, tokens), (same, text), [parts] in zip(
            found["H"][row], found["D"][row], found["P"][row], strict=True
        ):
            numbers = [float(part) for part in parts.split(" ")]
            assert all(re.fullmatch(r"-?\d+\.\d{4}", part) for part in parts.split(" "))
            assert len(numbers) == len(tokens.split(" ")) + 1  # the end of sentence has a score too
            assert float(score) == pytest.approx(sum(numbers) / len(numbers) ** 0.6, abs=1e-3)
            assert (same, text) == (score, tokens.replace(" ", "").replace("▁", " ").strip())
    assert re.fullmatch(
        r"Generate test with beam=3: BLEU4 = \d+\.\d\d, [\d.]+/[\d.]+/[\d.]+/[\d.]+ "
        r"\(BP=\d\.\d{3}, ratio=\d+\.\d{3}, syslen=\d+, reflen=\d+\)",
        lines[-1],
    )
    assert re.match(
        r"sacreBLEU test: BLEU\|nrefs:1\|case:mixed\|eff:no\|tok:13a\|smooth:exp\|version:\S+ = ", lines[-2]
    )
    assert re.match(r"Translated 12 sentences \(\d+ tokens\) in ", captured.err)


def test_shortest_sources_come_first(plain_world: World, capsys: pytest.CaptureFixture[str]) -> None:
    generate(plain_world)
    order = [int(match[1]) for match in re.finditer(r"^S-(\d+)\t", capsys.readouterr().out, re.MULTILINE)]
    sizes = np.fromfile(plain_world.data / "test.en-de.en.idx", dtype="<i4", count=12, offset=9 + 8 + 1 + 8)
    assert sorted(order) == list(range(12))
    assert [sizes[row] for row in order] == sorted(sizes)


def test_bleu_is_of_detokenised_text(plain_world: World, capsys: pytest.CaptureFixture[str]) -> None:
    generate(plain_world, "--sacrebleu")
    out = capsys.readouterr().out
    found = grouped(out)
    hypotheses = [found["D"][row][0][1] for row in range(12)]
    expected = sacrebleu.corpus_bleu(hypotheses, [plain_world.text("de")])
    assert out.splitlines()[-1] == f"Generate test with beam=5: {expected}"
    generate(plain_world, "--scoring", "sacrebleu", "--quiet")
    quiet = capsys.readouterr().out.splitlines()
    assert quiet[-1] == out.splitlines()[-1]
    assert len(quiet) == 2


def test_batches_change_no_translation(plain_world: World, capsys: pytest.CaptureFixture[str]) -> None:
    generate(plain_world)
    together = grouped(capsys.readouterr().out)
    generate(plain_world, "--batch-size", "1")
    alone = grouped(capsys.readouterr().out)
    for row in range(12):
        [(one, text)], [(other, same)] = together["H"][row], alone["H"][row]
        assert text == same
        assert float(one) == pytest.approx(float(other), abs=1e-4)


def test_joining_other_subwords_than_the_data_bins_changes_no_score(
    plain_world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    """A fairseq line's --remove-bpe, on a data-bin of SentencePiece: BLEU would be of pieces, with sacreBLEU's name."""
    assert generate(plain_world) == 0
    alone = capsys.readouterr().out
    assert generate(plain_world, "--remove-bpe") == 0
    assert capsys.readouterr().out == alone


def test_subwords_are_joined(token_world: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert generate(token_world) == 0
    apart = capsys.readouterr()
    assert "add --remove-bpe" in apart.err
    assert generate(token_world, "--remove-bpe") == 0
    joined = capsys.readouterr()
    assert "--remove-bpe" not in joined.err
    assert "sacreBLEU" not in joined.out  # the text is tokens: only their BLEU means something
    before, after = grouped(apart.out), grouped(joined.out)
    assert [after["T"][row][0][0] for row in range(12)] == [line.replace("@@ ", "") for line in token_world.text("de")]
    for row in range(12):
        [(_, tokens)], [(_, words)], [(_, plain)] = before["H"][row], after["H"][row], after["D"][row]
        assert words == plain == (tokens + " ").replace("@@ ", "").rstrip()


def test_an_ensemble_of_two_equal_models_is_one(plain_world: World, capsys: pytest.CaptureFixture[str]) -> None:
    generate(plain_world)
    one = grouped(capsys.readouterr().out)
    generate(plain_world, path=f"{plain_world.checkpoint}:{plain_world.checkpoint}")
    two = grouped(capsys.readouterr().out)
    other = plain_world.write_checkpoint("other.pt", seed=2)
    generate(plain_world, path=f"{plain_world.checkpoint}:{other}")
    mixed = grouped(capsys.readouterr().out)
    assert [one["H"][row][0][1] for row in range(12)] == [two["H"][row][0][1] for row in range(12)]
    assert [one["H"][row][0][1] for row in range(12)] != [mixed["H"][row][0][1] for row in range(12)]


def test_references_are_scored(plain_world: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert generate(plain_world, "--score-reference") == 0
    out = capsys.readouterr().out
    found = grouped(out)
    assert [found["D"][row][0][1] for row in range(12)] == plain_world.text("de")
    assert "BLEU4 = 100.00" in out
    # What the search finds with the reference as its prefix has the same scores.
    generate(plain_world, "--prefix-size", "30", "--beam", "1")
    forced = grouped(capsys.readouterr().out)
    for row in range(12):
        scored, searched = (each["P"][row][0][0].split(" ") for each in (found, forced))
        assert [float(score) for score in scored] == pytest.approx([float(score) for score in searched], abs=2e-3)


def test_shards_are_parts_of_the_whole(plain_world: World, capsys: pytest.CaptureFixture[str]) -> None:
    rows: list[int] = []
    for shard in range(3):
        flags = ("--num-shards", "3", "--shard-id", str(shard), "--batch-size", "4")
        assert generate(plain_world, *flags) == 0
        rows += grouped(capsys.readouterr().out)["H"].keys()
    assert sorted(rows) == list(range(12))


def test_results_go_to_a_file(plain_world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    generate(plain_world)
    expected = capsys.readouterr().out
    assert generate(plain_world, "--results-path", str(tmp_path / "new" / "results")) == 0
    assert (tmp_path / "new" / "results" / "generate-test.txt").read_text(encoding="utf-8") == expected
    assert capsys.readouterr().out.splitlines() == expected.splitlines()[-2:]


def test_shards_have_files_of_their_own_in_one_folder(
    plain_world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows: list[int] = []
    for shard in range(2):
        flags = ("--num-shards", "2", "--shard-id", str(shard), "--batch-size", "4", "--results-path", str(tmp_path))
        assert generate(plain_world, *flags) == 0
        assert f"scores are of shard {shard} of 2 alone" in capsys.readouterr().err
    for shard in range(2):
        text = (tmp_path / f"generate-test.{shard}-of-2.txt").read_text(encoding="utf-8")
        rows += grouped(text)["H"].keys()
    assert sorted(rows) == list(range(12))


def test_sampling_is_seeded(plain_world: World, capsys: pytest.CaptureFixture[str]) -> None:
    texts = []
    for seed, size in (("1", "12"), ("1", "5"), ("2", "12")):
        flags = ("--sampling", "--beam", "3", "--nbest", "3", "--sampling-topk", "8", "--seed", seed)
        assert generate(plain_world, *flags, "--batch-size", size) == 0
        found = grouped(capsys.readouterr().out)["H"]
        texts.append({row: [text for _, text in hypotheses] for row, hypotheses in found.items()})
    assert texts[0] == texts[1] != texts[2]


def test_dropout_can_be_retained(plain_world: World, capsys: pytest.CaptureFixture[str]) -> None:
    scores = []
    for flags in ((), ("--retain-dropout",), ("--retain-dropout",), ("--retain-dropout", "--seed", "2")):
        assert generate(plain_world, *flags) == 0
        scores.append(re.findall(r"^H-.*", capsys.readouterr().out, re.MULTILINE))
    assert scores[0] != scores[1] == scores[2] != scores[3]


def test_model_fields_can_be_changed(plain_world: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert generate(plain_world, "--model-overrides", "{'max_target_positions': 25}", "--min-len", "3") == 0
    capsys.readouterr()
    assert generate(plain_world, "--model-overrides", "{'max_target_positions': 3}") == 2
    assert "longer than 40 source or 3 target tokens" in capsys.readouterr().err


def test_long_sentences_are_refused_or_left_out(plain_world: World, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ("--model-overrides", "{'max_source_positions': 12}")
    assert generate(plain_world, *flags) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert "add --skip-invalid-size-inputs-valid-test" in captured.err
    assert generate(plain_world, *flags, "--skip-invalid-size-inputs-valid-test") == 0
    captured = capsys.readouterr()
    assert "left out" in captured.err
    assert 0 < len(grouped(captured.out)["H"]) < 12


def test_half_precision(plain_world: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert generate(plain_world, "--bf16") == 0
    assert len(grouped(capsys.readouterr().out)["H"]) == 12
    assert generate(plain_world, "--fp16") == 0
    captured = capsys.readouterr()
    assert len(grouped(captured.out)["H"]) == 12
    assert captured.err.startswith("warning: --fp16 is bfloat16 on a CPU\n")


def test_int8(plain_world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    if can_quantize():
        assert generate(plain_world, "--cpu") == 0
        exact = grouped(capsys.readouterr().out)["P"]
        assert generate(plain_world, "--cpu", "--int8") == 0
        assert grouped(capsys.readouterr().out)["P"] != exact
    monkeypatch.setattr("seqba.cli.jobs.translator.can_quantize", lambda: False)
    assert generate(plain_world, "--cpu", "--int8") == 2
    assert "--int8 needs oneDNN's int8 products" in capsys.readouterr().err
    monkeypatch.setattr("seqba.cli.jobs.translator.prepare_device", lambda *, cpu: torch.device("cuda"))
    assert generate(plain_world, "--int8") == 2
    assert "--int8 computes on a CPU, and here is a GPU: add --cpu" in capsys.readouterr().err


def sources_alone(world: World, folder: Path, *, pair: tuple[str, ...] = ("-s", "en", "-t", "de")) -> Path:
    """The test set as valid1 of a data-bin of its own, without references."""
    flags = [*pair, "--only-source", "--srcdict", str(world.data / "dict.en.txt"), "--destdir", str(folder)]
    text = f"{world.folder / 'test'},{world.folder / 'test'}"
    model = ["--sentencepiece-model", str(world.data / "sentencepiece.model")]
    assert preprocess([*flags, *model, "--validpref", text]) == 0
    return folder


@pytest.mark.parametrize("pair", [("-s", "en", "-t", "de"), ("-s", "en")])
def test_sources_without_references_are_translated(
    pair: tuple[str, ...], plain_world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = sources_alone(plain_world, tmp_path / "alone", pair=pair)
    arguments = [str(data), "--gen-subset", "valid1", "--path", str(plain_world.checkpoint), "--cpu", *LIMITS]
    capsys.readouterr()
    assert run(main, arguments) == 2
    assert "has no dict.de.txt: copy it from the data-bin that the model was trained on" in capsys.readouterr().err
    shutil.copy(plain_world.data / "dict.de.txt", data)
    assert generate(plain_world, "--nbest", "2") == 0
    whole = capsys.readouterr().out
    assert run(main, [*arguments, "--nbest", "2"]) == 0
    alone = capsys.readouterr().out
    assert {line[0] for line in alone.splitlines()} == set("SHDP")
    found, expected = grouped(alone), grouped(whole)
    for row in range(12):
        assert found["S"][row] == expected["S"][row]
        for (score, text), (same, words) in zip(found["H"][row], expected["H"][row], strict=True):
            assert text == words
            assert float(score) == pytest.approx(float(same), abs=1e-5)
    assert run(main, [*arguments, "--results-path", str(tmp_path / "results")]) == 0
    assert capsys.readouterr().out == ""
    assert "T-0" not in (tmp_path / "results" / "generate-valid1.txt").read_text(encoding="utf-8")
    for flags in (["--score-reference"], ["--prefix-size", "1"], ["--sacrebleu"], ["--scoring", "bleu"], ["--quiet"]):
        limited = (
            [argument for argument in arguments if argument not in LIMITS]
            if "--score-reference" in flags
            else arguments
        )
        assert run(main, [*limited, *flags]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.startswith(
            f"error: {flags[0]} needs references, and the split 'valid1' has none: leave it out"
        )
        assert captured.err.count("\n") == 1


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("ranks", [2, 3])
def test_several_ranks_print_the_lines_of_one_once(
    ranks: int, plain_world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--beam", "3", "--nbest", "2", "--batch-size", "2", "--required-batch-size-multiple", "1"]
    assert generate(plain_world, *flags) == 0
    alone = capsys.readouterr().out
    start = "import sys; from seqba.cli.generate import entry; sys.exit(entry())"
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks), "--no-python"]
    arguments = [str(plain_world.data), "--path", str(plain_world.checkpoint), "--cpu", *LIMITS, *flags]
    finished = subprocess.run(
        [preloaded().python, *command, preloaded().python, "-c", start, *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout == alone
    assert finished.stderr.count("Translated 12 sentences") == 1
