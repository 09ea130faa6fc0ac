"""Sentence pairs in two memory-mapped corpora, and the padded batches made of them."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from seqba.data.dictionary import Dictionary
from seqba.data.indexed import Corpus
from seqba.data.padding import count_tokens
from seqba.errors import UserError


class AbsentSide:
    """The target side of a text without references: as many rows, none of which has a token.

    Args:
        rows: N.

    Attributes:
        sizes: (N,) int32, zeros.
    """

    def __init__(self, rows: int) -> None:
        self.sizes = np.zeros(rows, dtype=np.int32)

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.sizes)

    def padded(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Some rows: (B, 0) int64."""
        return np.empty((len(rows), 0), dtype=np.int64)


@dataclass(frozen=True)
class PairBatch:
    """Some pairs as tensors, right-padded with `<pad>` = 1; B pairs, sources up to L tokens, targets up to T.

    Attributes:
        ids: (B,) int64, the rows' numbers in their corpus.
        source: (B, L) int64, x1 … xn </s>.
        previous: (B, T) int64, what the decoder reads: </s> y1 … yn.
        target: (B, T) int64, what it shall say: y1 … yn </s>; T is 0 where there are no references.
        source_lengths: tokens of each source, on the host: so no GPU has to be asked. None where they aren't known.
        target_lengths: likewise, of each target.
    """

    ids: torch.Tensor
    source: torch.Tensor
    previous: torch.Tensor
    target: torch.Tensor
    source_lengths: list[int] | None = None
    target_lengths: list[int] | None = None

    @functools.cached_property
    def source_tokens(self) -> int | None:
        """Source tokens, `</s>` included and padding not, where the host knows."""
        return None if self.source_lengths is None else sum(self.source_lengths)

    @functools.cached_property
    def target_tokens(self) -> int:
        """Target tokens, `</s>` included and padding not: the weight of the batch."""
        known = self.known_target_tokens
        return int((self.target != Dictionary.pad).sum()) if known is None else known

    @functools.cached_property
    def known_target_tokens(self) -> int | None:
        """The same where the host knows without asking; in a pass, of all its rows."""
        return None if self.target_lengths is None else sum(self.target_lengths)


class PairCorpus:
    """Row i of the source corpus and row i of the target corpus are translations of each other.

    Args:
        source: the source side.
        target: the target side, of the same number of rows; `AbsentSide` for sources without references.

    Raises:
        UserError: if the sides differ in length.
    """

    def __init__(self, source: Corpus, target: Corpus | AbsentSide) -> None:
        if len(source) != len(target):
            raise UserError(
                f"the source corpus has {len(source)} sentences and the target corpus {len(target)}; "
                "preprocess both sides again, together"
            )
        self.source = source
        self.target = target

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.source)

    @property
    def has_references(self) -> bool:
        """Whether there is a target side."""
        return not isinstance(self.target, AbsentSide)

    @property
    def source_sizes(self) -> npt.NDArray[np.int32]:
        """(N,) int32, tokens of each source, `</s>` included."""
        return self.source.sizes

    @property
    def target_sizes(self) -> npt.NDArray[np.int32]:
        """(N,) int32, tokens of each target, `</s>` included."""
        return self.target.sizes

    @property
    def text_ends(self) -> npt.NDArray[np.int64]:
        """(K,) int64, the pair at which each of K texts (`train`, `train1`, …) ends."""
        return np.cumsum([len(part) for part in self.source.parts], dtype=np.int64)

    def batch(self, rows: npt.NDArray[np.int64]) -> PairBatch:
        """The pairs of the given rows (n,), in that order."""
        return pair_batch(rows, self.source.padded(rows), self.target.padded(rows), self.target_sizes[rows])


def pair_batch(
    rows: npt.NDArray[np.int64],
    source: npt.NDArray[np.int64],
    target: npt.NDArray[np.int64],
    target_sizes: npt.NDArray[np.integer],
) -> PairBatch:
    """Pairs as tensors.

    Args:
        rows: (B,) int64, their numbers in the corpus.
        source: (B, L) int64, padded on the right.
        target: (B, T) int64, padded on the right.
        target_sizes: (B,) tokens of each target, `</s>` included.
    """
    previous = np.full_like(target, Dictionary.eos)
    previous[:, 1:] = target[:, :-1]
    previous[np.arange(target.shape[1]) >= target_sizes[:, None]] = Dictionary.pad
    return PairBatch(
        ids=torch.from_numpy(np.array(rows, dtype=np.int64)),
        source=torch.from_numpy(source),
        previous=torch.from_numpy(previous),
        target=torch.from_numpy(target),
        source_lengths=count_tokens(source),
        target_lengths=count_tokens(target),
    )
