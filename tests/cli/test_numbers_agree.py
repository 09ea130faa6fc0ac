"""Numbers that two commands print for the same lines are the same, unknown words in both languages included."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from seqba.cli.command import run
from seqba.cli.eval_lm import main as eval_lm
from seqba.cli.generate import main as generate
from seqba.cli.preprocess import main as preprocess
from seqba.cli.score import main as score
from seqba.cli.train import main as train

SIZES = ["--decoder-layers", "1", "--decoder-embed-dim", "16", "--decoder-ffn-embed-dim", "16"]
EVERY = ["--cpu", "--log-format", "json", "--lr-scheduler", "fixed", "--validate-interval", "1000"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Texts of numbers, the highest of which training hasn't seen, and words that are spelt like special symbols."""
    chance, folder = np.random.default_rng(3), tmp_path_factory.mktemp("numbers")
    known: list[list[int]] = []
    for split, lines, most in (("train", 30, 8), ("valid", 20, 10)):
        rows = [*known, *(chance.integers(0, most, chance.integers(4, 7)).tolist() for _ in range(lines))]
        known = rows[3:15]  # which the model learns by heart, so that BLEU isn't zero
        for letter, language in (("w", "en"), ("v", "de")):
            texts = [" ".join(f"{letter}{number}" for number in row) for row in rows]
            texts[1] += " <unk>"
            texts[2] += " <<unk>>"
            (folder / f"{split}.{language}").write_text("\n".join(texts) + "\n", encoding="utf-8")
    return folder


def made(folder: Path, name: str, *flags: str, capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    """A data-bin whose valid and test are the same text, and what preprocessing says of it."""
    texts = [
        f"--{split}pref={folder / text}"
        for split, text in {"train": "train", "valid": "valid", "test": "valid"}.items()
    ]
    capsys.readouterr()
    assert preprocess([*texts, *flags, "--destdir", str(folder / name)]) == 0
    return str(folder / name), capsys.readouterr().out


def validated(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, float]:
    """The figures of the last validation."""
    capsys.readouterr()
    assert run(train, [*arguments, *EVERY]) == 0
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines() if '"valid"' in line]
    figures: dict[str, float] = [each for each in told if each["event"] == "valid"][-1]
    return figures


def printed(main: object, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert run(main, arguments) == 0  # type: ignore[arg-type]
    return capsys.readouterr().out


def test_translations(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, _ = made(folder, "bin", "-s", "en", "-t", "de", capsys=capsys)
    search = '{"beam": 3, "max_len_b": 12}'
    arguments = [
        "--arch",
        "transformer_tiny",
        "--lr",
        "3e-3",
        "--max-tokens",
        "300",
        "--max-update",
        "150",
        "--dropout",
        "0",
    ]
    figures = validated(
        [data, *arguments, "--save-dir", str(tmp_path), "--eval-bleu", "--eval-bleu-args", search], capsys
    )
    model = [data, "--path", str(tmp_path / "checkpoint_last.pt"), "--cpu"]
    outputs = {
        "searched": printed(generate, [*model, "--beam", "3", "--max-len-b", "12"], capsys),
        "given": printed(generate, [*model, "--score-reference"], capsys),
    }
    for name, out in outputs.items():
        lines = {kind: dict(re.findall(rf"^{kind}-(\d+)\t(?:-?[\d.e-]+\t)?(.*)$", out, re.MULTILINE)) for kind in "TD"}
        for kind, texts in lines.items():
            text = "".join(f"{texts[row]}\n" for row in sorted(texts, key=int))
            (tmp_path / kind).write_text(text, encoding="utf-8")
        scored = printed(score, ["--sys", str(tmp_path / "D"), "--ref", str(tmp_path / "T")], capsys)
        assert scored.splitlines()[0] == out.splitlines()[-1].split(": ", 1)[1], name
    bleu = re.search(r"BLEU4 = ([\d.]+)", outputs["searched"])
    assert bleu is not None
    assert 0 < float(bleu[1]) == pytest.approx(figures["bleu"], abs=0.005)
    parts = [
        float(part) for row in re.findall(r"^P-\d+\t(.*)$", outputs["given"], re.MULTILINE) for part in row.split()
    ]
    assert 2 ** (-sum(parts) / len(parts)) == pytest.approx(figures["ppl"], rel=1e-4)


@pytest.mark.parametrize(
    "mode", [["--tokens-per-sample", "8"], ["--tokens-per-sample", "9", "--sample-break-mode", "eos"]]
)
def test_blocks_of_text(mode: list[str], folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, told = made(folder, f"lm{len(mode)}", "-s", "en", "--only-source", capsys=capsys)
    counted = re.search(r"valid\.en: \d+ sents, (\d+) tokens, ([\d.]+)% replaced by <unk>", told)
    assert counted is not None
    text = (folder / "valid.en").read_text(encoding="utf-8")
    seen = set((folder / "train.en").read_text(encoding="utf-8").split())
    words = text.split()
    unknown = [word for word in words if word not in seen and word != "<unk>"]
    assert int(counted[1]) == len(words) + text.count("\n")
    assert float(counted[2]) == pytest.approx(100 * len(unknown) / int(counted[1]), rel=5e-3)
    kind = ["--task", "language_modeling", *SIZES, "--decoder-attention-heads", "2", *mode, "--max-tokens", "99"]
    figures = validated([data, *kind, "--lr", "1e-2", "--max-update", "9", "--save-dir", str(tmp_path)], capsys)
    out = printed(
        eval_lm, [data, "--path", str(tmp_path / "checkpoint_last.pt"), "--gen-subset", "valid", "--cpu"], capsys
    )
    assert f"Evaluated {counted[1]} tokens" in out
    assert f"Perplexity: {figures['ppl']:.2f}" in out


def test_running_text(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, told = made(folder, "running", "-s", "en", "--only-source", capsys=capsys)
    kind = [
        "--task",
        "language_modeling",
        "--arch",
        "awd_lstm",
        "--decoder-embed-dim",
        "8",
        "--decoder-hidden-size",
        "8",
    ]
    numbers = ["--bptt", "5", "--batch-size", "4", "--batch-size-valid", "1", "--optimizer", "sgd", "--lr", "1"]
    figures = validated([data, *kind, *numbers, "--max-update", "9", "--save-dir", str(tmp_path)], capsys)
    out = printed(
        eval_lm, [data, "--path", str(tmp_path / "checkpoint_last.pt"), "--gen-subset", "valid", "--cpu"], capsys
    )
    tokens = re.search(r"valid\.en: \d+ sents, (\d+) tokens", told)
    assert tokens is not None
    assert f"Evaluated {int(tokens[1]) - 1} tokens" in out  # nothing predicts the first one
    assert f"Perplexity: {figures['ppl']:.2f}" in out
