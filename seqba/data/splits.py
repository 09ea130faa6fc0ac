"""Content of a data folder, by the names of its files: splits of pairs, or of one text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from seqba.data.dictionary import Dictionary
from seqba.data.indexed import IndexedCorpus, ids_path
from seqba.data.names import split_paths
from seqba.errors import UserError, quoted

NAMED_ROWS = 10
NO_TARGET = "None"
"""What seqba-preprocess --only-source and fairseq write for the language that there isn't: `train.en-None.en`."""


def data_folders(data: str) -> list[Path]:
    """The data folders of a command line, separated by colons.

    Raises:
        UserError: if there are none, or one of them is missing.
    """
    given = split_paths(data)
    if not given:
        raise UserError("no data-bin is given: make one with seqba-preprocess")
    for folder in given:
        if not Path(folder).is_dir():
            raise UserError(f"there is no data-bin {folder}: make it with seqba-preprocess --destdir {folder}")
    return [Path(folder) for folder in given]


def language_pairs(folder: Path) -> set[str]:
    """The pairs of languages that a folder holds: {"en-de"} for `train.en-de.en.idx`."""
    names = {parts[1] for parts in _corpora(folder) if len(parts) >= 3 and parts[1].count("-") == 1}
    return {name for name in names if not name.endswith(f"-{NO_TARGET}")}


def two_sided(folder: Path, pair: str) -> bool:
    """Whether a folder holds texts of both languages of a pair `en-de`, in any split."""
    return {parts[2] for parts in _corpora(folder) if len(parts) >= 3 and parts[1] == pair} == set(pair.split("-"))


def text_languages(folder: Path) -> set[str | None]:
    """The single texts that a folder holds: {"en"} for `train.en-None.en.idx`, {None} for `train.idx`."""
    found: set[str | None] = set()
    for parts in _corpora(folder):
        if len(parts) == 1:
            found.add(None)
        elif len(parts) == 3 and parts[1] == f"{parts[2]}-{NO_TARGET}":
            found.add(parts[2])
    return found


def with_suffix(name: str, language: str | None) -> str:
    """`train` and `en` → `train.en`; a text without a language keeps its name."""
    return name if language is None else f"{name}.{language}"


def part_names(split: str, exists: Callable[[str], bool], *, combine: bool) -> list[str]:
    """`train`, and with `combine` also `train1`, `train2`, … as far as they exist, as fairseq does in training.

    Raises:
        UserError: for a path in a split's place, which would be read by the dictionaries of another folder.
    """
    if Path(split).name != split:
        raise UserError(
            f"{quoted(split)} is a path, not the name of a split (train, valid, test): give its folder as DATA"
        )
    names = [split]
    while combine and exists(f"{split}{len(names)}"):
        names.append(f"{split}{len(names)}")
    return names


def missing_split(folder: Path, split: str, of: str, file: str) -> UserError:
    """The error for a split that isn't there, which names those that are."""
    have = sorted({parts[0] for parts in _corpora(folder)})
    listed = f"it has: {', '.join(have)}" if have else "run seqba-preprocess"
    return UserError(f"data folder {folder} has no split {quoted(split)}{of} ({file}); {listed}")


def check_sentences(corpus: IndexedCorpus) -> None:
    """Refuses what no model can learn from: no rows at all, or rows that do not end with `</s>`.

    Raises:
        UserError: naming the file.
    """
    path = ids_path(corpus.prefix)
    if not len(corpus):
        raise UserError(f"corpus {path} holds no sentences; preprocess a text that has some")
    ends = (corpus.sizes > 0).all() and (corpus.last_ids() == Dictionary.eos).all()
    if not ends:
        raise UserError(f"corpus {path} has rows that do not end with </s>; preprocess it again with end marks")


def name_rows(rows: npt.NDArray[np.int64]) -> str:
    """The first of some rows, for a message: `0, 7, 12, …`."""
    return ", ".join(str(row) for row in rows[:NAMED_ROWS]) + (", …" if len(rows) > NAMED_ROWS else "")


def _corpora(folder: Path) -> list[list[str]]:
    """The names of a folder's indexes, cut at the dots: `train.en-de.en.idx` → ["train", "en-de", "en"]."""
    return [path.name.split(".")[:-1] for path in folder.glob("*.idx")]
