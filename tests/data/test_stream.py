"""Streams and windows: which token is where, and how long the windows are."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from seqba.data.stream import Streams, Windows, fixed_windows, random_windows
from seqba.errors import UserError


class Counting:
    """The text 0, 1, 2, …"""

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens

    def take(self, places: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        assert places.min() >= 0
        assert places.max() < self.tokens
        return places


def test_streams_lie_side_by_side_and_the_remainder_is_left_out() -> None:
    streams = Streams(Counting(23), 4)  # 4 × 5, three tokens left over
    assert streams.length == 5
    batch = streams.window(range(4), 1, 3)
    assert batch.tokens.tolist() == [[1, 2], [6, 7], [11, 12], [16, 17]]
    assert batch.target.tolist() == [[2, 3], [7, 8], [12, 13], [17, 18]]
    assert not batch.is_first
    assert streams.window(range(4), 0, 2).is_first
    assert batch.size == 8


def test_micro_batches_read_the_same_window_of_their_own_streams() -> None:
    windows = Windows(Streams(Counting(40), 4), np.array([0, 4, 9]), micro_batches=2)
    assert len(windows) == 4
    starts = [batch.tokens[:, 0].tolist() for batch in (windows[number] for number in range(4))]
    assert starts == [[0, 10], [20, 30], [4, 14], [24, 34]]
    assert [windows[number].is_first for number in range(4)] == [True, True, False, False]
    with pytest.raises(IndexError):
        windows[4]


def test_an_epoch_predicts_every_token_but_the_streams_first_ones_once() -> None:
    streams = Streams(Counting(2000), 2)
    windows = Windows(streams, random_windows(streams.length, 20, seed=3, epoch=1))
    targets = np.concatenate([windows[number].target[0].numpy() for number in range(len(windows))])
    assert targets.tolist() == list(range(1, 1000))
    carried = np.concatenate([windows[number].tokens[1].numpy() for number in range(len(windows))])
    assert carried.tolist() == list(range(1000, 1999))


def test_window_lengths_are_the_released_code_s() -> None:
    lengths = np.diff(random_windows(4_000_000, 70, seed=1, epoch=1))[:-1]
    full, half = lengths[lengths > 52], lengths[lengths <= 52]
    assert len(half) / len(lengths) == pytest.approx(0.05, abs=0.005)
    # int() of a normal number is half a token short on average.
    assert full.mean() == pytest.approx(69.5, abs=0.1)
    assert half.mean() == pytest.approx(34.5, abs=0.5)
    assert full.std() == pytest.approx(5, abs=0.1)
    assert full.max() > 80  # no upper bound


def test_no_window_but_the_last_is_shorter_than_five() -> None:
    lengths = np.diff(random_windows(100_000, 6, seed=1, epoch=1))
    assert lengths[:-1].min() == 5
    assert (lengths[:-1] == 5).mean() > 0.3


def test_windows_are_a_function_of_seed_and_epoch() -> None:
    def windows(seed: int, epoch: int) -> list[int]:
        return random_windows(5000, 30, seed=seed, epoch=epoch).tolist()

    assert windows(1, 1) == windows(1, 1)
    assert windows(1, 1) != windows(1, 2)
    assert windows(1, 1) != windows(2, 1)
    assert windows(1, 1)[:4] == GOLDEN  # across NumPy's versions


GOLDEN = [0, 35, 62, 89]


@pytest.mark.parametrize("length", range(2, 40))
def test_windows_of_short_streams_cover_them(length: int) -> None:
    starts = random_windows(length, 10, seed=1, epoch=1)
    assert starts[0] == 0
    assert starts[-1] == length - 1
    assert (np.diff(starts) > 0).all()


def test_fixed_windows_end_with_what_is_left() -> None:
    assert fixed_windows(15, 5).tolist() == [0, 5, 10, 14]
    assert fixed_windows(11, 5).tolist() == [0, 5, 10]
    assert fixed_windows(2, 5).tolist() == [0, 1]


def test_a_text_too_short_for_its_streams_is_refused() -> None:
    with pytest.raises(UserError, match="a text has 7 tokens, too few to cut into 4 streams of at least 2: take fewer"):
        Streams(Counting(7), 4)
