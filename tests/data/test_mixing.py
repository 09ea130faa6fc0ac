"""Texts mixed by weights: how often each example comes, and when."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from seqba.data.mixing import mixed_count, mixed_rows, read_weights, times_before, write_weights
from seqba.errors import UserError

ROWS = np.delete(np.arange(60), [3, 4, 40])  # three were too long: of the texts, 28 and 29 are left
ENDS = np.array([30, 60])


def counts(weights: tuple[float, ...], epoch: int, seed: int = 1) -> Counter[int]:
    return Counter(mixed_rows(ROWS, ENDS, weights, seed=seed, epoch=epoch).tolist())


def test_whole_weights_repeat_every_example() -> None:
    assert counts((3, 1), 5) == {row: 3 if row < 30 else 1 for row in ROWS.tolist()}
    assert mixed_rows(ROWS, ENDS, (1, 1), seed=1, epoch=2).tolist() == ROWS.tolist()


@pytest.mark.parametrize("weight", [0.1, 0.25, 0.01, 0.7])
def test_a_fraction_takes_turns_until_each_example_has_come(weight: float) -> None:
    epochs = round(1 / weight)
    times: Counter[int] = Counter()
    for epoch in range(1, epochs + 1):
        here = counts((weight, 2 + weight), epoch)
        assert abs(sum(here[row] for row in range(30)) - 28 * weight) < 1
        assert all(here[row] in (2, 3) for row in ROWS.tolist() if row >= 30)
        times.update({row: count for row, count in here.items() if row < 30})
    if weight * epochs <= 1:
        assert max(times.values()) == 1
        assert len(times) == int(28 * epochs * weight + 1e-9)
    assert mixed_count(28, weight) == pytest.approx(28 * weight)


def test_a_tenth_of_a_tenth_is_exact() -> None:
    """0.1 and 0.3 are no binary numbers, and no example is lost or doubled for it."""
    rows, ends = np.arange(10), np.array([10])
    for weight, epochs, times in ((0.1, 50, 5), (0.3, 100, 30), (3.1, 10, 31)):
        total: Counter[int] = Counter()
        for epoch in range(1, epochs + 1):
            total.update(mixed_rows(rows, ends, (weight,), seed=2, epoch=epoch).tolist())
        assert total == dict.fromkeys(range(10), times)


def test_turns_are_a_function_of_seed_and_epoch_and_differ_between_texts() -> None:
    one, again, other = (mixed_rows(ROWS, ENDS, (0.5, 0.5), seed=s, epoch=1).tolist() for s in (1, 1, 2))
    assert one == again != other
    assert one != mixed_rows(ROWS, ENDS, (0.5, 0.5), seed=1, epoch=3).tolist()  # dealt out anew
    twins = mixed_rows(np.arange(40), np.array([20, 40]), (0.5, 0.5), seed=1, epoch=1)
    assert (twins[:10] + 20).tolist() != twins[10:].tolist()


def test_a_text_without_examples_gives_none() -> None:
    assert mixed_rows(np.arange(5), np.array([0, 5]), (2.5, 1), seed=1, epoch=1).tolist() == [0, 1, 2, 3, 4]


def test_weights_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "train.weights"
    assert read_weights(path) == ()
    write_weights(path, (3.0, 0.1))
    assert path.read_text() == "3\n0.1\n"
    assert read_weights(path) == (3.0, 0.1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "are none"),
        ("1\nmany\n", "line 2: 'many' is not a number above 0 and at most 1000"),
        ("0\n", "line 1: '0' is not"),
        ("nan\n", "line 1: 'nan' is not"),
        ("1e9\n", "line 1: '1e9' is not"),
        ("3,1\n", "line 1: '3,1' is not"),
    ],
)
def test_bad_weights_are_one_line(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "train.weights").write_text(content)
    with pytest.raises(UserError, match=message):
        read_weights(tmp_path / "train.weights")


def test_how_often_each_row_has_come_before() -> None:
    assert times_before(np.array([5, 0, 5, 5, 2, 0])).tolist() == [0, 0, 1, 2, 0, 1]
    assert not len(times_before(np.empty(0, np.int64)))
