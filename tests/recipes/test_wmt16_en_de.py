from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from seqba.checkpoints.file import read_checkpoint
from seqba.data.indexed import IndexedCorpus

TRAIN = ("europarl-v7.de-en", "commoncrawl.de-en", "news-commentary-v11.de-en")
TINY = [
    *("--encoder-layers", "1", "--encoder-embed-dim", "32", "--encoder-ffn-embed-dim", "64"),
    *("--decoder-layers", "1", "--decoder-embed-dim", "32", "--decoder-ffn-embed-dim", "64"),
    *("--encoder-attention-heads", "2", "--decoder-attention-heads", "2"),
    *("--max-tokens", "400", "--warmup-updates", "2"),
]

RELEASED = {"dropout": 0.1, "attention_dropout": 0.1, "activation_dropout": 0.1}


def as_sgm(path: Path) -> str:
    """A plain file in the form of WMT's tests."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return "<doc>\n" + "".join(f'<seg id="{i}">{line}</seg>\n' for i, line in enumerate(lines)) + "</doc>\n"


@pytest.fixture
def parts(toy_text: Path, write_pairs) -> Path:
    """The corpus's parts under their own names, at toy size."""
    for name in TRAIN:
        write_pairs(toy_text / f"{name}.en", toy_text / f"{name}.de", 60)
    write_pairs(toy_text / "newstest2013.en", toy_text / "newstest2013.de", 12)
    for name in ("newstest2014-deen", "newstest2015-ende", "newstest2016-ende"):
        (toy_text / f"{name}-src.en.sgm").write_text(as_sgm(toy_text / "newstest2013.en"), encoding="utf-8")
        (toy_text / f"{name}-ref.de.sgm").write_text(as_sgm(toy_text / "newstest2013.de"), encoding="utf-8")
    return toy_text


def dropouts(folder: Path) -> dict[str, float]:
    """Those of a checkpoint's model."""
    options = read_checkpoint(folder / "checkpoint_last.pt")["cfg"]["model"]["options"]
    return {name: options[name] for name in RELEASED}


def assert_divided_by(log: Path, penalty: Callable[[int], float]) -> None:
    """The score of every translation is the sum over its tokens, divided by the penalty of their number."""
    lines = [line.split("\t") for line in log.read_text(encoding="utf-8").splitlines()]
    scores = {fields[0][2:]: float(fields[1]) for fields in lines if fields[0].startswith("H-")}
    tokens = {fields[0][2:]: [float(x) for x in fields[1].split()] for fields in lines if fields[0].startswith("P-")}
    assert len(scores) == len(tokens) == 12
    assert any(len(own) > 1 for own in tokens.values())
    for number, score in scores.items():
        own = tokens[number]
        assert score == pytest.approx(sum(own) / penalty(len(own)), abs=1e-4 * (1 + len(own)))


@pytest.mark.slow
def test_the_papers_run_at_toy_size(recipe, parts: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ["--from", parts, "--arm", "all", "--copies", "2", "--updates", "3", "--merges", "60", "--out", out]
    finished = recipe("wmt16_en_de.sh", *arguments, "--", *TINY)
    assert finished.returncode == 0, finished.stderr
    for arm, micro_batches, copies in (("baseline", 4, 1), ("fixed-samples", 8, 1), ("ba", 4, 2)):
        folder = out / arm / "newstest2014"
        assert len((folder / "text.de").read_text(encoding="utf-8").splitlines()) == 12
        report = (folder / "bleu.txt").read_text(encoding="utf-8")
        assert report.count("BLEU") >= 3
        run = json.loads((out / arm / "run.json").read_text(encoding="utf-8"))
        assert (run["micro_batches_per_update"], run["copies"]) == ([micro_batches], copies)
        assert dropouts(out / arm) == RELEASED
        assert_divided_by((out / arm / "newstest2014" / "generate.log"), lambda length: ((5 + length) / 6) ** 0.6)
    corpus = {path.name: path.stat().st_mtime_ns for path in (out / "corpus" / "bpe").iterdir()}
    again = recipe("wmt16_en_de.sh", *arguments[:2], *arguments[4:], "--", *TINY)
    assert again.returncode == 0, again.stderr
    assert {path.name: path.stat().st_mtime_ns for path in (out / "corpus" / "bpe").iterdir()} == corpus


@pytest.mark.slow
def test_fairseqs_habit_at_toy_size_and_shortened(recipe, parts: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    habit = ["--micro-batches", "1", "--noise", "fairseq", "--lenpen-form", "fairseq"]
    sizes = ["--copies", "2", "--updates", "8", "--merges", "60", "--scale", "0.25"]
    finished = recipe("wmt16_en_de.sh", "--from", parts, *sizes, *habit, "--out", out, "--", *TINY)
    assert finished.returncode == 0, finished.stderr
    run = json.loads((out / "ba" / "run.json").read_text(encoding="utf-8"))
    assert (run["micro_batches_per_update"], run["copies"]) == ([1], 2)
    schedule = run["training"]["schedule"]
    assert run["training"]["run"]["max_update"] == 2
    assert (schedule["lr_scheduler"], schedule["lr"]) == ("inverse_sqrt", 6.988e-4)
    pairs, (short,) = len(IndexedCorpus(out / "data-bin" / "train.en-de.en")), out.glob("data-bin-*")
    assert len(IndexedCorpus(short / "train.en-de.en")) == int(short.name[9:]) == (pairs + 1) // 2
    assert (short / "dict.de.txt").read_bytes() == (out / "data-bin" / "dict.de.txt").read_bytes()
    assert dropouts(out / "ba") == {**RELEASED, "attention_dropout": 0.0, "activation_dropout": 0.0}
    assert_divided_by(out / "ba" / "newstest2014" / "generate.log", lambda length: length**0.6)


@pytest.mark.parametrize(
    ("option", "value", "complaint"),
    [
        ("--noise", "loud", "--noise is released or fairseq, not 'loud'"),
        ("--lenpen-form", "t2t", "--lenpen-form is gnmt or fairseq, not 't2t'"),
        ("--micro-batches", "0", "--micro-batches takes a whole number from 1 on, not '0'"),
        ("--shards", "0", "--micro-batches takes a whole number from 1 on, not '0'"),  # its former name
        ("--updates", "1e5", "--updates takes a whole number from 1 on, not '1e5'"),
        ("--copies", "", "--copies takes a whole number from 1 on, not ''"),
    ],
)
def test_a_wrong_value_is_one_line_before_any_work(
    recipe, tmp_path: Path, option: str, value: str, complaint: str
) -> None:
    finished = recipe("wmt16_en_de.sh", option, value, "--out", tmp_path / "out")
    assert (finished.returncode, finished.stderr) == (2, f"error: {complaint}\n")
    assert not (tmp_path / "out").exists()
