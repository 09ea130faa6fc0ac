"""Command lines of fairseq's public pages run as they stand, with copies and without.

`fairseq_lines.txt` has them. They run on texts of a few lines, and what their size forbids is appended to them, where
the last of two flags wins: sizes of models (names of architectures stay), two updates, two epochs in an average, one
process of preprocessing. Nothing of a line is changed or left out but its pipe.
"""

from __future__ import annotations

import io
import logging
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from seqba.checkpoints.file import read_checkpoint
from seqba.cli import average_checkpoints, eval_lm, generate, interactive, preprocess, score, train
from seqba.cli.command import run

WORDS = ["the", "mam@@ mal", "spe@@ cies", "is", "rare", "new", "dis@@ cover", "why", "ma@@ rine", "to"]
CODES = ["#version: 0.2", "d i", "di s</w>"]
SMALL = {
    "translation": "--encoder-layers 1 --decoder-layers 1 --encoder-embed-dim 16 --encoder-ffn-embed-dim 24 "
    "--encoder-attention-heads 2 --decoder-embed-dim 16 --decoder-ffn-embed-dim 24 --decoder-attention-heads 2",
    "language_modeling": "--decoder-layers 1 --decoder-embed-dim 16 --decoder-ffn-embed-dim 24 "
    "--decoder-attention-heads 2",
}
MAINS = {
    "fairseq-preprocess": preprocess.main,
    "fairseq-train": train.main,
    "fairseq-generate": generate.main,
    "fairseq-interactive": interactive.main,
    "fairseq-eval-lm": eval_lm.main,
    "fairseq-score": score.main,
    "python train.py": train.main,
    "python generate.py": generate.main,
    "python scripts/average_checkpoints.py": average_checkpoints.main,
}
APPENDED = {
    preprocess.main: ["--workers", "1"],
    generate.main: ["--cpu"],
    interactive.main: ["--cpu"],
    eval_lm.main: ["--cpu"],
    average_checkpoints.main: ["--num-epoch-checkpoints", "2"],
    score.main: [],
}


@dataclass(frozen=True)
class Line:
    """A command of a page: its function, its arguments, and what its error says where it is refused."""

    main: Callable[[list[str]], int]
    arguments: list[str]
    refused: str | None = None


@dataclass(frozen=True)
class Page:
    title: str
    lines: list[str]

    def __iter__(self) -> Iterator[Line | tuple[str, str]]:
        """Commands, and (path, what stands for it) of what a page downloads."""
        names: dict[str, str] = {}
        refused = None
        for line in self.lines:
            if set_ := re.fullmatch(r"(\w+)=(\S+)", line):
                names[set_[1]] = set_[2]
            elif line.startswith("# here: "):
                path, stand_in = line.removeprefix("# here: ").split(" ", 1)
                yield path, stand_in
            elif line.startswith("# refused: "):
                refused = line.removeprefix("# refused: ")
            else:
                yield self._command(line, names, refused)
                refused = None

    def _command(self, line: str, names: dict[str, str], refused: str | None) -> Line:
        line = re.sub(r" [|>].*", "", line.removeprefix("CUDA_VISIBLE_DEVICES=0 "))
        command = next(name for name in MAINS if line.startswith(name))
        words = shlex.split(re.sub(r"\$(\w+)", lambda name: names[name[1]], line.removeprefix(command)))
        return Line(MAINS[command], words, refused)


def read_pages() -> list[Page]:
    text = Path(__file__).with_name("fairseq_lines.txt").read_text(encoding="utf-8").replace("\\\n", " ")
    pages = []
    for part in text.split("\n== ")[1:]:
        title, *lines = part.strip().splitlines()
        pages.append(Page(title, [line for line in lines if line]))
    return pages


PAGES = read_pages()


def value_of(arguments: list[str], flag: str) -> str | None:
    return arguments[arguments.index(flag) + 1] if flag in arguments else None


def write_texts(arguments: list[str]) -> None:
    """The texts that a line of fairseq-preprocess names."""
    chance = np.random.default_rng(7)
    for flag, count in (("--trainpref", 64), ("--validpref", 8), ("--testpref", 8)):
        prefix = Path(str(value_of(arguments, flag)))
        prefix.parent.mkdir(parents=True, exist_ok=True)
        languages = [value_of(arguments, name) for name in ("--source-lang", "--target-lang")]
        lines = [" ".join(chance.choice(WORDS, chance.integers(3, 9))) + " ." for _ in range(count)]
        for suffix in {f".{language}" if language else "" for language in languages}:
            Path(f"{prefix}{suffix}").write_text("\n".join(lines) + "\n", encoding="utf-8")


def provide(path: str, stand_in: str, data: str) -> None:
    """Puts a model of untrained weights, BPE codes, or what is there under another name, where a page downloads it."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    if stand_in == "a model":
        sizes = [*SMALL["translation"].split(), "--max-tokens", "500", "--lr", "1e-3", "--max-update", "1"]
        assert train.main([data, "--arch", "transformer_iwslt_de_en", "--save-dir", "made", "--cpu", *sizes]) == 0
        shutil.copy("made/checkpoint_last.pt", path)
    elif stand_in == "codes":
        Path(path).write_text("\n".join(CODES) + "\n", encoding="utf-8")
    else:
        Path(path).symlink_to(Path(stand_in).resolve())


def appended(line: Line) -> list[str]:
    if line.main is not train.main:
        return APPENDED[line.main]
    sizes = SMALL[value_of(line.arguments, "--task") or "translation"] if line.refused is None else ""
    return [*sizes.split(), "--max-update", "2", "--cpu"]


def write_lines_to_score(output: str) -> list[str]:
    """What the page makes of the translations with grep and cut, under the names of its next command."""
    for name, kind, column in (("sys", "H", 2), ("ref", "T", 1)):
        chosen = [line.split("\t", column)[column] for line in output.splitlines() if line.startswith(f"{kind}-")]
        Path(f"gen.out.{name}").write_text("\n".join(chosen) + "\n", encoding="utf-8")
    return ["--sys", "gen.out.sys", "--ref", "gen.out.ref"]


@pytest.fixture
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"Why is it rare to discover new species?\n")))
    return tmp_path


@pytest.mark.slow
@pytest.mark.usefixtures("own_folder", "one_thread")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.title)
def test_lines_run_as_they_stand(
    page: Page, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    data, output = "", ""
    for line in page:
        if isinstance(line, tuple):
            provide(*line, data)
            continue
        arguments = line.arguments
        if line.main is preprocess.main:
            write_texts(arguments)
            data = str(value_of(arguments, "--destdir"))
        if line.main is score.main:
            arguments = write_lines_to_score(output)
        capfd.readouterr()
        status = run(line.main, [*arguments, *appended(line)])  # type: ignore[arg-type]
        output, errors = capfd.readouterr()
        assert status == (0 if line.refused is None else 2), errors
        if line.refused is not None:
            assert line.refused in errors.splitlines()[-1]
        elif line.main is train.main:
            copies = 2 if "--rdrop-alpha" in arguments else 1  # which R-Drop compares
            check_run(line, value_of(arguments, "--save-dir") or "checkpoints", copies=copies)
            assert run(train.main, [*arguments, *appended(line), "--copies", "4", "--save-dir", "copies4"]) == 0
            check_run(line, "copies4", copies=4)
            shutil.rmtree("copies4")


def check_run(line: Line, folder: str, *, copies: int) -> None:
    """The line's run has made its two updates, with weights that aren't broken."""
    state = read_checkpoint(Path(folder) / "checkpoint_last.pt")
    assert state["optimizer_history"][-1]["num_updates"] == 2
    assert state["cfg"]["model"]["arch"] == value_of(line.arguments, "--arch") or value_of(line.arguments, "-a")
    assert state["cfg"]["training"]["grid"]["copies"] == copies
    assert all(weight.isfinite().all() for weight in state["model"].values() if isinstance(weight, torch.Tensor))


def test_options_without_effect_are_named_together(
    own_folder: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.INFO)
    flags = "--ddp-backend=no_c10d --num-workers 4 --left-pad-source False --ddp-backend c10d --fast-stat-sync"
    assert run(train.main, ["absent", "--lr", "1", "--max-tokens", "9", *flags.split()]) == 2
    (told,) = [record.getMessage() for record in caplog.records if "without effect" in record.getMessage()]
    assert told == (
        "accepted and without effect here: --ddp-backend, --left-pad-source, --fast-stat-sync, --num-workers "
        "(docs/fairseq.md says why)"
    )
    capsys.readouterr()
    assert run(train.main, ["absent", "--lr", "1", "--max-tokens", "9", "--left-pad-source", "maybe"]) == 2
    assert "argument --left-pad-source: 'maybe' is neither True nor False" in capsys.readouterr().err
    assert run(train.main, ["absent", "--lr", "1", "--max-tokens", "9", "--dataset-impl", "raw"]) == 2
    assert "argument --dataset-impl: invalid choice: 'raw'" in capsys.readouterr().err
    assert run(generate.main, ["absent", "--path", "x", "--num-workers", "4"]) == 2
    assert capsys.readouterr().err.startswith("warning: accepted and without effect here: --num-workers (docs/")
