"""A toy language pair: the translation of a sequence of letters is the same letters backwards."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from seqba.data.dictionary import Dictionary
from seqba.data.indexed_writer import IndexedWriter

LETTERS = [chr(ord("a") + number) for number in range(12)]
SPLITS = {"train": 400, "valid": 40, "test": 40}


def write_reversal(
    folder: Path, *, seed: int = 1, longest: int = 6, long_line: int | None = None, splits: dict[str, int] = SPLITS
) -> Path:
    """Writes a data-bin xx → yy; `long_line` adds a first pair of that many letters to every split."""
    folder.mkdir(parents=True, exist_ok=True)
    dictionary = Dictionary([(letter, 1) for letter in LETTERS])
    for language in ("xx", "yy"):
        dictionary.save(folder / f"dict.{language}.txt")
    random = np.random.default_rng(seed)
    for split, count in splits.items():
        lengths = random.integers(2, longest + 1, count).tolist()
        if long_line is not None:
            lengths[0] = long_line
        lines = [random.choice(LETTERS, length).tolist() for length in lengths]
        for language, ordered in (("xx", lines), ("yy", [line[::-1] for line in lines])):
            with IndexedWriter(folder / f"{split}.xx-yy.{language}", len(dictionary)) as writer:
                for line in ordered:
                    writer.add(dictionary.encode(line))
    return folder


SMALL_MODEL = [
    *("--arch", "transformer_tiny", "--share-all-embeddings"),
    *("--encoder-layers", "1", "--decoder-layers", "1"),
    *("--encoder-embed-dim", "16", "--encoder-ffn-embed-dim", "32"),
    *("--encoder-attention-heads", "2", "--decoder-attention-heads", "2", "--dropout", "0.1"),
]


def train_arguments(data: Path, save_dir: Path, *more: str) -> list[str]:
    """A command line of seqba-train for the toy pair: small, fast, with dropout."""
    return [
        *(str(data), "--save-dir", str(save_dir), "--cpu", *SMALL_MODEL),
        *("--max-tokens", "160", "--copies", "2", "--lr", "0.01", "--log-format", "json", "--log-interval", "5"),
        *more,
    ]
