"""What seqba-generate refuses."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from translation_world import World, generate

from seqba.cli.command import run
from seqba.cli.generate import main


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--gen-subset", "valid"], "no split 'valid'"),
        (["--path", ""], "--path is missing"),
        (["--path", "nowhere.pt"], "checkpoint nowhere.pt does not exist"),
        (["-s", "de", "-t", "en"], "translates en to de, not de to en"),
        (["--task", "language_modeling"], "--task"),
        (["--beam", "0"], "--beam is 0; it must be at least 1"),
        (["--nbest", "7"], "--nbest 7 is more than --beam 5"),
        (["--min-len", "90"], "--min-len 90 is more than"),
        (["--temperature", "0"], "--temperature is 0; it must be greater than 0"),
        (["--lenpen", "nan"], "--lenpen is nan; it must be a finite number"),
        (["--beam", "3000000"], "--beam is 3000000; it must be at most 1000"),
        (["--unnormalized", "--lenpen", "0.6"], "--unnormalized ranks without a length penalty"),
        (["--sampling", "--nbest", "5", "--sampling-topp", "0"], "--sampling-topp above 0"),
        (["--lenpen-form", "marian"], "gnmt"),
        (["--max-tokens", "3"], "longer than 3 source"),
        (["--shard-id", "2", "--num-shards", "2"], "--shard-id is 2"),
        (["--shard-id", "5", "--num-shards", "9"], "shard 5 has none"),
        (["--score-reference", "--prefix-size", "1"], "--prefix-size has no meaning"),
        (["--score-reference", "--sampling"], "--sampling has no meaning"),
        (["--score-reference", "--beam", "5"], "--beam has no meaning"),
        (["--score-reference", "--nbest", "1"], "--nbest has no meaning"),
        (["--fp16", "--bf16"], "not both"),
        (["--int8", "--bf16"], "leave out --fp16 and --bf16"),
        (["--int8", "--score-reference"], "--int8 is for searching"),
        (["--model-overrides", "__import__('os').system('true')"], "not a Python dict of plain values"),
        (["--model-overrides", "[1]"], "is a list, not a dict"),
        (["--model-overrides", "{'width': 3}"], "a model has no field 'width'"),
        (["--model-overrides", "{'dropout': 2.0}"], "--dropout is 2; it must be less than 1"),
        (["--model-overrides", "{'dropout': 'high'}"], "'dropout' is 'high'; it must be a float"),
        (["--model-overrides", "{'encoder_layers': True}"], "'encoder_layers' is True; it must be a int"),
        (["--model-overrides", "{'encoder_layers': 3}"], "has no weight 'encoder_layers.2."),
        (["--tokenizer", "nltk"], "--tokenizer nltk is not one here: take moses, or tokenise the text beforehand"),
        (["--moses-target-lang", "de"], "--moses-target-lang belongs to --tokenizer moses, which isn't given"),
        (["--bpe", "fastbpe"], "--bpe fastbpe is not one here: give the codes of subword-nmt"),
        (["--bpe", "subword_nmt"], "--bpe subword_nmt needs --bpe-codes"),
        (["--bpe", "subword_nmt", "--bpe-codes", "absent"], "BPE codes absent does not exist"),
        (["--sentencepiece-model", "x"], "--sentencepiece-model belongs to --bpe sentencepiece, which isn't given"),
        (["--print-alignment"], "--print-alignment is not an option here"),
        (["--diverse-beam-groups", "2"], "use --sampling"),
        (["--beem", "3"], "did you mean --beam?"),
    ],
)
def test_mistakes_are_one_line(
    plain_world: World, flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert generate(plain_world, *flags) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert message in captured.err


def test_files_that_do_not_belong_together(
    plain_world: World, token_world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert generate(plain_world, path=str(token_world.checkpoint)) == 2
    assert "was trained with another dictionary than" in capsys.readouterr().err
    truncated = tmp_path / "short.pt"
    truncated.write_bytes(plain_world.checkpoint.read_bytes()[:2000])
    assert generate(plain_world, path=str(truncated)) == 2
    assert "short.pt" in capsys.readouterr().err
    assert run(main, [str(tmp_path / "bin"), "--path", str(plain_world.checkpoint), "--cpu"]) == 2
    assert "there is no data-bin" in capsys.readouterr().err


def test_weights_that_are_not_numbers(plain_world: World, capsys: pytest.CaptureFixture[str]) -> None:
    state = torch.load(plain_world.checkpoint, weights_only=True)
    for tensor in state["model"].values():
        tensor.fill_(math.nan)
    broken = plain_world.write_checkpoint("nan.pt", seed=1, model=state["model"])
    assert generate(plain_world, path=str(broken)) == 2
    assert "not numbers (NaN)" in capsys.readouterr().err


def test_a_failed_run_leaves_no_results(plain_world: World, tmp_path: Path) -> None:
    assert generate(plain_world, "--results-path", str(tmp_path), "--min-len", "90") == 2
    assert list(tmp_path.iterdir()) == []
