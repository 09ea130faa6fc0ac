"""Raw corpora → the data of the studies: a part of Penn Treebank, Multi30k and parts of it, and parts of CIFAR-10.

ptb-twentieth     the first 2,100 lines of the training text, with their own dictionary
ptb-tenth         its first 4,200
multi30k          all 29,000 pairs, 4,000 joint subwords
multi30k-N        the first N pairs, 2,000 joint subwords
cifar10-N         the first N/5 pictures of each of the five training files, all test pictures
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from seqba.cli.command import run
from seqba.cli.preprocess import main as preprocess
from seqba.data.cifar import CIFAR10

Maker = Callable[[Path, Path, Path | None, int | None], None]
"""Fills a folder, from (folder, where raw corpora are kept, --from, subwords)."""

ROOT = Path(__file__).resolve().parents[2]
COMPLETE = ".complete"
REFERENCE = "reference.de"


def prepare(name: str, data: Path, raw: Path | None, symbols: int | None = None) -> Path:
    """The folder of a study's data, which is made if it isn't there.

    Args:
        name: see above.
        data: folder of all of them.
        raw: folder with the raw corpora; None to download them.
        symbols: joint subwords, where the study's own number is too large for the text; None for that.

    Raises:
        SystemExit: if a step fails; it has said why.
    """
    folder = data / name
    if not (folder / COMPLETE).exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        MAKERS[name](folder, data / "raw", raw, symbols)
        (folder / COMPLETE).touch()
    return folder


def _fetch(script: str, to: Path, raw: Path | None, *options: str) -> None:
    """Puts a public corpus where it is wanted."""
    source = () if raw is None else ("--from", str(raw))
    command = [sys.executable, str(ROOT / "data_prep" / script), *options, "--to", str(to), *source]
    if subprocess.run(command, check=False).returncode:
        sys.exit(2)


def _bin(*options: str | Path) -> None:
    status = run(preprocess, [str(option) for option in options])
    if status:
        sys.exit(status)


def _first_lines(source: Path, to: Path, count: int) -> None:
    lines = source.read_text(encoding="utf-8").splitlines(keepends=True)
    to.write_text("".join(lines[:count]), encoding="utf-8")


def _ptb(lines: int) -> Maker:
    def make(folder: Path, fetched: Path, raw: Path | None, _symbols: int | None) -> None:
        text = fetched / "ptb"
        _fetch("penn_treebank.py", text, raw)
        train = folder / "train.txt"
        _first_lines(text / "train.txt", train, lines)
        splits = ("--trainpref", train, "--validpref", text / "valid.txt", "--testpref", text / "test.txt")
        _bin("--only-source", *splits, "--padding-factor", "1", "--destdir", folder)

    return make


def _multi30k(pairs: int, subwords: int) -> Maker:
    def make(folder: Path, fetched: Path, raw: Path | None, symbols: int | None) -> None:
        text = fetched / "multi30k"
        _fetch("multi30k.py", text, raw)
        for language in ("en", "de"):
            _first_lines(text / f"train.{language}", folder / f"train.{language}", pairs)
        splits = ("--trainpref", folder / "train", "--validpref", text / "val", "--testpref", text / "test_2016_flickr")
        languages = ("--source-lang", "en", "--target-lang", "de", "--joined-dictionary")
        _bin(*languages, "--sentencepiece", str(symbols or subwords), *splits, "--destdir", folder)
        shutil.copyfile(text / "test_2016_flickr.de", folder / REFERENCE)

    return make


def _cifar(of_each: int) -> Maker:
    def make(folder: Path, fetched: Path, raw: Path | None, _symbols: int | None) -> None:
        _fetch("cifar.py", fetched / "cifar10", raw, "--dataset", "cifar10")
        source, to = fetched / "cifar10" / CIFAR10.folder, folder / CIFAR10.folder
        to.mkdir()
        for name in CIFAR10.train:
            with (source / name).open("rb") as file:
                (to / name).write_bytes(file.read(of_each * CIFAR10.record_bytes))
        for name in (CIFAR10.test, CIFAR10.names):
            shutil.copyfile(source / name, to / name)

    return make


MAKERS: dict[str, Maker] = {
    "ptb-twentieth": _ptb(2_100),
    "ptb-tenth": _ptb(4_200),
    "multi30k": _multi30k(29_000, 4_000),
    "multi30k-5000": _multi30k(5_000, 2_000),
    "multi30k-2500": _multi30k(2_500, 2_000),
    "cifar10-1000": _cifar(200),
    "cifar10-2500": _cifar(500),
    "cifar10-5000": _cifar(1_000),
    "cifar10-10000": _cifar(2_000),
}
"""Name → what fills its folder."""
