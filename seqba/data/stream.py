"""Running text as parallel streams, cut into windows for backpropagation through time."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from seqba.errors import UserError

FULL_SHARE = 0.95
"""Probability that a window's mean length is --bptt rather than half of it."""

JITTER = 5.0
"""Standard deviation of a window's length, in tokens."""

SHORTEST = 5
"""Least length of a window, in tokens, but for the last one."""

Starts = npt.NDArray[np.int64]


class TokenSource(Protocol):
    """Ids one after the other, read a piece at a time."""

    @property
    def tokens(self) -> int:
        """How many there are."""
        ...

    def take(self, places: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The ids at some places (n,), counting from 0: (n,) int64."""
        ...


@dataclass(frozen=True)
class StreamBatch:
    """One window of B streams, T tokens long.

    Attributes:
        tokens: (B, T) int64, what the model reads.
        target: (B, T) int64, the tokens that follow each.
        is_first: whether the streams begin here, so that no state is carried into the window.
    """

    tokens: torch.Tensor
    target: torch.Tensor
    is_first: bool

    @functools.cached_property
    def size(self) -> int:
        """Predicted tokens: B·T."""
        return self.target.numel()


class Streams:
    """A text cut into equally long streams that are read side by side; what is left over at the end is not used.

    Stream r holds tokens r·length … (r + 1)·length − 1.

    Args:
        source: the text.
        count: number of streams.
        name: what the text is called in a complaint.
        remedy: what to do about a text that is too short.

    Attributes:
        length: tokens of each stream.

    Raises:
        UserError: if the text is too short for so many streams of two tokens.
    """

    def __init__(self, source: TokenSource, count: int, *, name: str = "a text", remedy: str = "take fewer") -> None:
        self.source = source
        self.count = count
        self.length = source.tokens // count
        if self.length < 2:
            raise UserError(
                f"{name} has {source.tokens} tokens, too few to cut into {count} streams of at least 2: {remedy}"
            )

    def window(self, rows: range, start: int, stop: int) -> StreamBatch:
        """Tokens start … stop − 1 of some streams, and the ones after them; stop < length."""
        places = np.array(rows)[:, None] * self.length + np.arange(start, stop + 1)  # (B, T + 1)
        ids = torch.from_numpy(self.source.take(places.flatten()).reshape(places.shape))
        return StreamBatch(ids[:, :-1].contiguous(), ids[:, 1:].contiguous(), is_first=start == 0)


@dataclass(frozen=True)
class Windows:
    """The windows of an epoch over S·B streams: S micro-batches of B streams each, window by window.

    Item w·S + s is window w of micro-batch s, so that an update of S micro-batches reads the same window of all
    streams, and each micro-batch's next window goes on where it ended.

    Attributes:
        streams: S·B streams.
        starts: (W + 1,) int64, where the windows begin, and where the last one ends.
        micro_batches: S.
    """

    streams: Streams
    starts: Starts
    micro_batches: int = 1

    def __len__(self) -> int:
        """W·S."""
        return (len(self.starts) - 1) * self.micro_batches

    def __getitem__(self, number: int) -> StreamBatch:
        """Batch `number`, counting from 0."""
        if not 0 <= number < len(self):
            raise IndexError(f"batch {number} of {len(self)}")
        window, micro_batch = divmod(number, self.micro_batches)
        rows = self.streams.count // self.micro_batches
        return self.streams.window(
            range(micro_batch * rows, (micro_batch + 1) * rows), int(self.starts[window]), int(self.starts[window + 1])
        )


def random_windows(length: int, bptt: int, *, seed: int, epoch: int) -> Starts:
    """Beginnings of an epoch's windows, and the end of the last: a function of the length, `seed` and `epoch`.

    A window is N(m, 5²) tokens long, rounded towards zero and at least 5, with m = bptt in 95% of the windows and
    bptt/2 in the others; there is no upper bound. The last one ends one token before the stream does.

    Args:
        length: tokens of a stream.
        bptt: mean length of most windows.
        seed: of the run.
        epoch: counting from 1.

    Randomness: raw draws of PCG64 seeded with (seed, epoch), made normal by Box and Muller's formula, so that they stay
    the same across NumPy's versions.

    Source: as in AWD-LSTM's released code.
    """
    end = length - 1
    count = length // SHORTEST + 1
    draws = np.random.PCG64(np.random.SeedSequence([seed, epoch])).random_raw(3 * count).reshape(3, count)
    chosen, radius, angle = ((draws >> np.uint64(11)) + 0.5) * 2.0**-53  # uniform in (0, 1)
    means = np.where(chosen < FULL_SHARE, float(bptt), bptt / 2)
    normal = np.sqrt(-2 * np.log(radius)) * np.cos(2 * math.pi * angle)
    lengths = np.maximum(SHORTEST, np.trunc(means + JITTER * normal)).astype(np.int64)
    ends = np.cumsum(lengths)
    # No window begins at the very last token; the released code leaves that one out, here the last window takes it.
    inside = ends[ends < end - 1]
    return np.concatenate([[0], inside, [end]]).astype(np.int64)


def fixed_windows(length: int, bptt: int) -> Starts:
    """Windows of `bptt` tokens for evaluation; the last one takes what is left."""
    return np.append(np.arange(0, length - 1, bptt, dtype=np.int64), np.int64(length - 1))
