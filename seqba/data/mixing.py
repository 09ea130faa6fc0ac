"""Several training texts in one epoch, some more often than others."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt

from seqba.data.batching import permutation
from seqba.data.files import atomic_text, read_lines
from seqba.data.limits import LARGEST_WEIGHT
from seqba.errors import UserError, quoted
from seqba.options import number_text

Rows = npt.NDArray[np.int64]


def mixed_rows(rows: Rows, ends: Rows, weights: Sequence[float], *, seed: int, epoch: int) -> Rows:
    """Rows of an epoch in which an example of text k comes `weights[k]` times.

    What a weight has beyond a whole number takes turns: at 0.1 an epoch has a tenth of the text, the next one another
    tenth, and after ten epochs each example has come once. Then they are dealt out anew.

    Args:
        rows: (n,) int64, ascending: the examples to use.
        ends: (K,) int64, the row at which each text ends.
        weights: K of them, above 0.
        seed: of the run.
        epoch: counting from 1.

    Returns:
        (m,) int64; an example's repetitions are not next to each other.

    Randomness: PCG64 seeded with (seed, turn, text + 1), which no epoch's order is, as that has two numbers.
    """
    parts = np.split(rows, np.searchsorted(rows, ends[:-1]))
    return np.concatenate(
        [
            np.concatenate(
                [*[own] * math.floor(weight), own[_turn(len(own), _exact(weight) % 1, seed, epoch, number + 1)]]
            )
            for number, (own, weight) in enumerate(zip(parts, weights, strict=True))
        ]
    )


def times_before(rows: Rows) -> Rows:
    """How many times each row of an epoch has come before: rows (n,) int64 → (n,) int64."""
    order = np.argsort(rows, kind="stable")
    places = np.arange(len(rows))
    is_first = np.diff(rows[order], prepend=-1) != 0
    times = np.empty_like(places)
    times[order] = places - np.maximum.accumulate(np.where(is_first, places, 0))
    return times


def mixed_count(examples: int, weight: float) -> float:
    """Examples that an epoch has of a text, in the mean over epochs."""
    return float(_exact(weight) * examples)


def _turn(count: int, share: Fraction, seed: int, epoch: int, text: int) -> Rows:
    """Places of the examples whose turn it is: a stretch of one random order after the other."""
    if not share or not count:
        return np.empty(0, np.int64)
    start, stop = (math.floor(share * count * number) for number in (epoch - 1, epoch))
    found = [np.empty(0, np.int64)]
    for turn in range(start // count, -(-stop // count)):
        order = permutation(np.random.PCG64(np.random.SeedSequence([seed, turn, text])), count)
        found.append(order[max(0, start - turn * count) : stop - turn * count])
    return np.concatenate(found)


def _exact(weight: float) -> Fraction:
    """A weight as it was typed: 0.1 is a tenth."""
    return Fraction(repr(weight))


def weights_path(folder: Path, split: str) -> Path:
    """File with the weights that seqba-preprocess was given."""
    return folder / f"{split}.weights"


def write_weights(path: Path, weights: Sequence[float]) -> None:
    """Writes a weight a line."""
    with atomic_text(path) as file:
        file.writelines(f"{number_text(weight)}\n" for weight in weights)


def read_weights(path: Path) -> tuple[float, ...]:
    """Reads a weight a line; none where there is no such file.

    Raises:
        UserError: for a file that holds something else.
    """
    if not path.exists():
        return ()
    weights = tuple(_parsed(read_lines(path, "weights"), path))
    if not weights:
        raise UserError(f"weights {path} are none: remove the file, or preprocess again with --weights")
    return weights


def _parsed(lines: Sequence[str], path: Path) -> Iterator[float]:
    for number, line in enumerate(lines, 1):
        try:
            weight = float(line)
        except ValueError:
            weight = math.nan
        if not 0 < weight <= LARGEST_WEIGHT:
            raise UserError(
                f"weights {path}, line {number}: {quoted(line[:60])} is not a number above 0 and at most "
                f"{LARGEST_WEIGHT}"
            )
        yield weight
