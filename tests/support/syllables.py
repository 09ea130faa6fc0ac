"""A toy language pair of words that subword-nmt's merges cut: the translation of a sentence is its words backwards."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from seqba.data.dictionary import Dictionary
from seqba.data.indexed_writer import IndexedWriter
from seqba.data.moses import BytePairs

SYLLABLES = ["ba", "ko", "li", "mu", "ne"]
CODES = [
    "#version: 0.2",
    *(f"{first} {second}" for first, second in SYLLABLES),
    *(f"{first} {second}</w>" for first, second in SYLLABLES),
    *(f"{first} {second}" for first in SYLLABLES for second in SYLLABLES if first < second),
    *(f"{first} {second}</w>" for first in SYLLABLES for second in SYLLABLES if first > second),
]
SPLITS = {"train": 200, "valid": 20}


def sentences(count: int, *, seed: int = 1) -> list[list[str]]:
    """Sentences of up to five words of up to four syllables."""
    random = np.random.default_rng(seed)
    return [
        ["".join(random.choice(SYLLABLES, random.integers(1, 5))) for _ in range(random.integers(1, 6))]
        for _ in range(count)
    ]


def subword_dictionary() -> Dictionary:
    """All subwords that the merges can make, characters included."""
    pieces = {*"".join(SYLLABLES), *(line.replace(" ", "") for line in CODES[1:])}
    words = {piece.removesuffix("</w>") for piece in pieces if len(piece) == 1 or piece.endswith("</w>")}
    going_on = {f"{piece}@@" for piece in pieces if not piece.endswith("</w>")}
    return Dictionary([(token, 1) for token in sorted(words | going_on)])


def write_syllables(folder: Path, *, codes: bool = True) -> Path:
    """Writes a data-bin xx → yy, with the merges that its words are cut by unless `codes` is False."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "bpe.codes").write_text("\n".join(CODES) + "\n", encoding="utf-8")
    pairs = BytePairs(folder / "bpe.codes")
    if not codes:
        (folder / "bpe.codes").unlink()
    dictionary = subword_dictionary()
    for language in ("xx", "yy"):
        dictionary.save(folder / f"dict.{language}.txt")
    for number, (split, count) in enumerate(SPLITS.items()):
        lines = sentences(count, seed=number)
        for language, ordered in (("xx", lines), ("yy", [line[::-1] for line in lines])):
            with IndexedWriter(folder / f"{split}.xx-yy.{language}", len(dictionary)) as writer:
                for words in ordered:
                    writer.add(dictionary.encode(pairs.encode(" ".join(words))))
    return folder
