"""A toy text: each line begins with any letter and goes on through the alphabet, round and round."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from seqba.data.dictionary import Dictionary
from seqba.data.indexed_writer import IndexedWriter

LETTERS = [chr(ord("a") + number) for number in range(12)]
SPLITS = {"train": 400, "valid": 40, "test": 40}


def write_alphabet(
    folder: Path,
    *,
    seed: int = 1,
    longest: int = 9,
    long_line: int | None = None,
    splits: dict[str, int] = SPLITS,
    letters: list[str] = LETTERS,
) -> Path:
    """Writes a data-bin; `long_line` puts a first line of that many letters into every split."""
    folder.mkdir(parents=True, exist_ok=True)
    dictionary = Dictionary([(letter, 1) for letter in letters])
    dictionary.save(folder / "dict.txt")
    random = np.random.default_rng(seed)
    for split, count in splits.items():
        lengths = random.integers(3, longest + 1, count).tolist()
        if long_line is not None:
            lengths[0] = long_line
        starts = random.integers(0, len(letters), count).tolist()
        with IndexedWriter(folder / split, len(dictionary)) as writer:
            for start, length in zip(starts, lengths, strict=True):
                line = [letters[(start + step) % len(letters)] for step in range(length)]
                writer.add(dictionary.encode(line))
    return folder


SMALL_MODEL = [
    *("--arch", "transformer_lm", "--share-decoder-input-output-embed", "--decoder-layers", "1"),
    *("--decoder-embed-dim", "16", "--decoder-ffn-embed-dim", "32", "--decoder-attention-heads", "2"),
]


def train_arguments(data: Path, save_dir: Path, *more: str) -> list[str]:
    """A command line of seqba-train for the toy text: small, fast, with dropout."""
    return [
        *(str(data), "--task", "language_modeling", "--save-dir", str(save_dir), "--cpu", *SMALL_MODEL),
        *("--tokens-per-sample", "24", "--max-tokens", "192", "--copies", "2", "--lr", "0.01", "--dropout", "0.1"),
        *("--log-format", "json", "--log-interval", "5"),
        *more,
    ]
