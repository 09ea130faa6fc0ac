"""A text cut into rows for a model that sees each row alone: blocks of running text, or lines."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from seqba.data.dictionary import Dictionary
from seqba.data.indexed import Corpus
from seqba.data.padding import count_tokens

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class BlockBatch:
    """Some blocks as tensors, right-padded with `<pad>` = 1; B blocks of up to T tokens.

    Attributes:
        ids: (B,) int64, the blocks' numbers in their text.
        previous: (B, T) int64, what the model reads: at each place the token before the one it shall predict.
        target: (B, T) int64, what it shall predict; `<pad>` where nothing is: in the padding, under `<s>`, and in
            context that is only read.
        lengths: tokens that are read of each row, on the host: so no GPU has to be asked. None where they aren't known.
        predicted: likewise, tokens that are predicted.
    """

    ids: torch.Tensor
    previous: torch.Tensor
    target: torch.Tensor
    lengths: list[int] | None = None
    predicted: list[int] | None = None

    @functools.cached_property
    def tokens(self) -> int | None:
        """Tokens that are read, where the host knows."""
        return None if self.lengths is None else sum(self.lengths)

    @functools.cached_property
    def target_tokens(self) -> int:
        """Predicted tokens: the weight of the batch."""
        known = self.known_target_tokens
        return int((self.target != Dictionary.pad).sum()) if known is None else known

    @functools.cached_property
    def known_target_tokens(self) -> int | None:
        """The same where the host knows without asking; in a pass, of all its rows."""
        return None if self.predicted is None else sum(self.predicted)


class Blocks:
    """A text as blocks, each token of it in exactly one.

    What a block reads is the text shifted by one: its first token is predicted from the last one of the block before
    it, and the very first of the text from `</s>`. For example, a b </s> c d e </s> in blocks of 4:

        block 0 reads </s> a b </s> and predicts a b </s> c;   block 1 reads c d e and predicts d e </s>

    Args:
        corpus: the text; no block goes from one of its parts (`train`, `train1`, …) into the next.
        size: tokens of a block, in break mode none.
        break_mode: "none" cuts every `size` tokens, wherever lines end (the last block of a part is what is left);
            "eos" makes each line a block, however long.
        add_bos: each row begins with `<s>`, for which nothing is predicted.
        context: so many tokens before a block are read again, without being predicted.
        longest: context is shortened so that no row of `longest` tokens grows beyond that; None for no limit.

    Attributes:
        text_ends: (K,) int64, the block at which each of K texts (`train`, `train1`, …) ends.
        sizes: (n,) int64, tokens that the model reads of each block, `<s>` and context included.
        predicted: (n,) int64, tokens of each block alone.

    Raises:
        ValueError: for a break mode that there isn't.

    Source: fairseq's `TokenBlockDataset`, `MonolingualDataset` and `LMContextWindowDataset`. Unlike there, `<s>` is
    read but not predicted from itself, and stands before the context rather than inside it.
    """

    def __init__(
        self,
        corpus: Corpus,
        size: int,
        *,
        break_mode: str = "none",
        add_bos: bool = False,
        context: int = 0,
        longest: int | None = None,
    ) -> None:
        if break_mode not in ("none", "eos"):
            raise ValueError(f"break_mode is {break_mode!r}; it must be none or eos")
        self.corpus = corpus
        self.add_bos = add_bos
        lengths = [
            part.sizes.astype(np.int64) if break_mode == "eos" else _equal_sizes(part.tokens, size)
            for part in corpus.parts
        ]
        self.text_ends = np.cumsum([len(own) for own in lengths], dtype=np.int64)
        self.predicted = np.concatenate(lengths)
        self._starts = np.cumsum(self.predicted) - self.predicted
        self._context = np.minimum(context, self._starts)
        if longest is not None:
            self._context = np.minimum(self._context, np.maximum(0, longest - self.predicted))
        self.sizes: Numbers = self.predicted + self._context + add_bos

    def __len__(self) -> int:
        """Number of blocks."""
        return len(self.sizes)

    @property
    def source_sizes(self) -> Numbers:
        """The same as `sizes`: what is read and what is predicted lie side by side."""
        return self.sizes

    @property
    def target_sizes(self) -> Numbers:
        """The same as `sizes`."""
        return self.sizes

    def batch(self, rows: Numbers) -> BlockBatch:
        """The blocks of the given numbers (n,), in that order."""
        context, sizes = self._context[rows], self._context[rows] + self.predicted[rows]
        columns = np.arange(sizes.max(initial=0))
        inside = columns < sizes[:, None]  # (B, T)
        places = (self._starts[rows] - context)[:, None] + columns  # of the predicted tokens
        previous, target = np.full((2, *inside.shape), Dictionary.pad, dtype=np.int64)
        target[inside] = self.corpus.take(places[inside])
        previous[inside] = self.corpus.take(np.maximum(places[inside] - 1, 0))
        previous[places == 0] = Dictionary.eos
        target[columns < context[:, None]] = Dictionary.pad
        if self.add_bos:
            previous = np.pad(previous, ((0, 0), (1, 0)), constant_values=Dictionary.bos)
            target = np.pad(target, ((0, 0), (1, 0)), constant_values=Dictionary.pad)
        return BlockBatch(
            ids=torch.from_numpy(np.array(rows, dtype=np.int64)),
            previous=torch.from_numpy(previous),
            target=torch.from_numpy(target),
            lengths=count_tokens(previous),
            predicted=count_tokens(target),
        )


def _equal_sizes(tokens: int, size: int) -> Numbers:
    """`size` again and again, and what is left over: (⌈tokens / size⌉,)."""
    sizes = np.full(-(-tokens // size), size, dtype=np.int64)
    sizes[-1:] = tokens - size * (len(sizes) - 1)
    return sizes
