"""Sentence pairs of which each copy is cut into subwords anew, by draws of its own."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from seqba.data.bpe_dropout import BpeDropout, Keys, Lines, line_keys
from seqba.data.dictionary import Dictionary
from seqba.data.indexed import Corpus
from seqba.data.merges import Merges
from seqba.data.pairs import AbsentSide, PairBatch, PairCorpus, pair_batch
from seqba.errors import UserError

Rows = npt.NDArray[np.int64]

logger = logging.getLogger(__name__)

CHECKED_LINES = 1000
"""So many lines are cut without dropping a merge, to see whether they come out as the corpus has them."""

LEAST_SAME = 0.9
"""Share of these that must; the text may have lines that were made otherwise."""

LEAST_CUT = 0.5
"""Share of words that must be cut; others stay for want of a piece."""

ROW_BITS = 40
"""Bits of a row's number in its key; above them is how often it has come before."""


@dataclass(frozen=True)
class SampledSide:
    """Side of a text whose lines are cut into subwords.

    Attributes:
        language: its name, for messages.
        merges: of its BPE.
        dictionary: of its ids.
        longest: tokens of a line, `</s>` included, that the model takes; one that comes out longer stays as it is.
    """

    language: str
    merges: Merges
    dictionary: Dictionary
    longest: int


class PairSampler:
    """Cuts the pairs of a batch into subwords anew for each of its copies: BPE-dropout.

    Args:
        source: how sources are cut.
        target: how targets are cut.
        probability: of dropping a merge, in (0, 1).
        seed: of the run.

    Randomness: a line is cut by the key (seed, epoch, side, copy, row, how often the row has come in this epoch before:
    --weights repeats some). So no two micro-batches share a draw, and none changes with the size of batches.
    """

    def __init__(self, source: SampledSide, target: SampledSide, probability: float, *, seed: int) -> None:
        self.sides = source, target
        self.seed = seed
        self._cutters = [BpeDropout(side.merges, side.dictionary, probability) for side in self.sides]

    def check(self, pairs: PairCorpus, where: str) -> None:
        """Refuses a text that these merges haven't made, or whose pieces the dictionary lacks.

        Raises:
            UserError: if too many of its first lines come out otherwise without a merge being dropped, or too few words
                can be cut.
        """
        for side, cutter, corpus in zip(self.sides, self._cutters, (pairs.source, pairs.target), strict=True):
            rows = np.arange(min(CHECKED_LINES, len(corpus)))
            lines, keys = _lines(corpus, rows), line_keys(rows, 1)
            cut = BpeDropout(side.merges, side.dictionary, 0.0).cut(lines, keys)
            same = sum(map(np.array_equal, _split(lines), _split(cut))) / len(rows)
            if same < LEAST_SAME:
                raise UserError(
                    f"--subword-sampling: of the first {len(rows)} lines of {side.language} in {where} only {same:.0%} "
                    f"are cut as {side.merges.where} does: give the data folder the model that its text was made with"
                )
            share = cutter.share_of_words(lines, keys)
            if share < LEAST_CUT:
                raise UserError(
                    f"--subword-sampling: {side.merges.where} can cut only {share:.0%} of the words of the first "
                    f"{len(rows)} lines of {side.language} in {where} into pieces that the dictionary has: learn fewer "
                    "pieces or from more text, or leave it out"
                )
            logger.info(
                "each copy cuts %s's words anew by the merges of %s; %.1f%% of them can be cut",
                side.language,
                side.merges.where,
                100 * share,
            )

    def batch(self, pairs: PairCorpus, epoch: int, rows: Rows, before: Rows, copies: int) -> PairBatch:
        """Some pairs, cut anew for each copy.

        The copies are padded to the same lengths, so that what a model draws on the padded grid of a copy is of one
        shape whatever copies are beside it.

        Args:
            pairs: the corpus.
            epoch: from 1 on.
            rows: (B,) numbers of pairs.
            before: (B,) how many times the epoch had each of them before.
            copies: M.

        Returns:
            M·B rows, copy-major.
        """
        keys = rows + (before << ROW_BITS)
        source, _ = self._cut(0, pairs.source, rows, line_keys(keys, copies, self.seed, epoch, 0))
        target, sizes = self._cut(1, pairs.target, rows, line_keys(keys, copies, self.seed, epoch, 1))
        return pair_batch(np.tile(rows, copies), source, target, sizes)

    def _cut(self, number: int, corpus: Corpus | AbsentSide, rows: Rows, keys: Keys) -> tuple[Rows, Rows]:
        """One side of the copies of some pairs: (M·B, L) ids with `</s>` and padding, and (M·B,) sizes."""
        copies = len(keys) // len(rows)
        plain = _lines(corpus, rows)
        lines = Lines(np.tile(plain.tokens, copies), np.tile(plain.sizes, copies))
        cut = self._cutters[number].cut(lines, keys)
        stays = cut.sizes + 1 > self.sides[number].longest
        sizes = np.where(stays, lines.sizes, cut.sizes)
        padded = np.full((len(sizes), int(sizes.max()) + 1), Dictionary.pad, dtype=np.int64)
        inside = np.arange(padded.shape[1]) < sizes[:, None]
        padded[inside & stays[:, None]] = lines.tokens[np.repeat(stays, lines.sizes)]
        padded[inside & ~stays[:, None]] = cut.tokens[np.repeat(~stays, cut.sizes)]
        padded[np.arange(len(sizes)), sizes] = Dictionary.eos
        return padded, sizes + 1


def _lines(corpus: Corpus | AbsentSide, rows: Rows) -> Lines:
    """Some rows of a corpus, without their `</s>`."""
    padded, sizes = corpus.padded(rows), corpus.sizes[rows].astype(np.int64) - 1
    return Lines(padded[np.arange(padded.shape[1]) < sizes[:, None]], sizes)


def _split(lines: Lines) -> list[Rows]:
    return np.split(lines.tokens, np.cumsum(lines.sizes)[:-1])
