"""BPE-dropout: words cut anew into subwords by merges of which some are dropped, by keyed draws."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from seqba.data.dictionary import Dictionary
from seqba.data.merges import Merges

Numbers = npt.NDArray[np.int64]
Keys = npt.NDArray[np.uint64]
Ranks = npt.NDArray[np.int32]
Mask = npt.NDArray[np.bool_]

WIDTHS = (4, 8, 12, 16, 24, 32, 64)
"""Words are merged together with others of up to so many characters; longer ones than the last stay as they are."""

NEVER = np.iinfo(np.int32).max  # rank of neighbours without a merge
NOTHING = -1

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Lines:
    """Some lines of token ids.

    Attributes:
        tokens: (n,) int64, those of all lines one after the other, without `</s>`.
        sizes: (r,) int64, how many each line has.
    """

    tokens: Numbers
    sizes: Numbers


class BpeDropout:
    """Cuts the words of token ids anew, merge by merge, each of which is dropped with a probability p.

    A word begins as its characters. In every step each pair of neighbours that has a merge is left out with probability
    p, drawn anew, and of the others the one of the lowest rank becomes one symbol; once none is left, the word is done.
    With p = 0 that is BPE itself; the larger p, the more and smaller the pieces.

    A word stays as it is if a token in it isn't made by merges (`<unk>`, a byte), if a piece isn't in the dictionary,
    and if it has more than 64 characters.

    Args:
        merges: of the BPE.
        dictionary: of the ids.
        probability: p, in [0, 1).

    Randomness: the draws of a line are a function of its key alone (SplitMix64 of key, word, step and place), whatever
    other lines are there.

    Source: Provilkov et al. 2020, "BPE-Dropout"; drawn in each step, as by subword-nmt's --dropout.
    """

    def __init__(self, merges: Merges, dictionary: Dictionary, probability: float) -> None:
        self.probability = probability
        tokens = [merges.take_apart(symbol) for symbol in dictionary.symbols]
        characters = [token.symbols if number > Dictionary.unk else () for number, token in enumerate(tokens)]
        pairs = itertools.chain.from_iterable((*pair, "".join(pair)) for pair in merges.ranks)
        names = dict.fromkeys(itertools.chain(pairs, *characters))
        number_of = {name: number for number, name in enumerate(names)}
        self._begins = np.array([token.begins for token in tokens])
        self._goes_on = np.array([token.goes_on for token in tokens])
        self._counts = np.array([len(each) for each in characters], dtype=np.int64)  # characters of each token
        self._firsts = np.cumsum(self._counts) - self._counts
        self._characters = np.array([number_of[name] for each in characters for name in each], dtype=np.int64)
        ids = (merges.token(name) for name in names)
        self._ids = np.array([dictionary.index(token) if token in dictionary else NOTHING for token in ids])
        table = sorted(
            (number_of[first] * len(names) + number_of[second], rank, number_of[first + second])
            for (first, second), rank in merges.ranks.items()
        )
        columns = np.array(table, dtype=np.int64).reshape(-1, 3).T
        self._pairs, self._merged = columns[0].copy(), columns[2].copy()
        self._ranks = columns[1].astype(np.int32)

    def cut(self, lines: Lines, keys: Keys) -> Lines:
        """The same lines, their words cut anew.

        Args:
            lines: as they are in the corpus.
            keys: (r,) uint64, of each line.
        """
        if not len(lines.tokens):
            return lines
        line, firsts, word_keys = self._words(lines, keys)
        sizes = np.diff(firsts, append=len(lines.tokens))
        cuts = list(self._cut_words(lines.tokens, firsts, word_keys))
        new_sizes = sizes.copy()
        for words, ids in cuts:
            new_sizes[words] = (ids != NOTHING).sum(1)
        return Lines(
            _joined(lines.tokens, sizes, new_sizes, cuts),
            np.bincount(line, weights=new_sizes, minlength=len(lines.sizes)).astype(np.int64),
        )

    def share_of_words(self, lines: Lines, keys: Keys) -> float:
        """Share of words that are cut, of those that aren't a single character; 1 where there are none."""
        if not len(lines.tokens):
            return 1.0
        _, firsts, word_keys = self._words(lines, keys)
        counts = self._counts[lines.tokens]
        is_single = (np.add.reduceat(counts, firsts) == 1) & (np.minimum.reduceat(counts, firsts) == 1)
        cut = sum(len(words) for words, _ in self._cut_words(lines.tokens, firsts, word_keys))
        return 1.0 if is_single.all() else cut / int((~is_single).sum())

    def _words(self, lines: Lines, keys: Keys) -> tuple[Numbers, Numbers, Keys]:
        """Line, first token and key of each word: (w,) each."""
        line = np.repeat(np.arange(len(lines.sizes)), lines.sizes)  # (n,), of each token
        firsts = np.flatnonzero(self._begins_word(lines.tokens, line))
        line = line[firsts]
        number = np.arange(len(firsts)) - np.searchsorted(line, line)  # of each word in its line
        return line, firsts, _mixed(keys[line] + number.astype(np.uint64) * _GOLDEN)

    def _begins_word(self, tokens: Numbers, line: Numbers) -> Mask:
        """Which tokens begin a word: (n,)."""
        begins = self._begins[tokens]
        begins[0] = True
        begins[1:] |= (line[1:] != line[:-1]) | ~self._goes_on[tokens[:-1]]
        return begins

    def _cut_words(self, tokens: Numbers, firsts: Numbers, keys: Keys) -> Iterator[tuple[Numbers, Numbers]]:
        """Numbers (w',) of words that are cut, and their new ids (w', L), `NOTHING` behind the last."""
        counts = self._counts[tokens]
        lengths = np.add.reduceat(counts, firsts)  # characters of each word
        can_be_cut = np.minimum.reduceat(counts, firsts) > 0
        of_tokens = _ranges(self._firsts[tokens], counts)
        characters = self._characters[of_tokens]  # of all words, one after the other
        starts = np.cumsum(lengths) - lengths
        for shortest, width in itertools.pairwise((1, *WIDTHS)):
            words = np.flatnonzero(can_be_cut & (lengths > shortest) & (lengths <= width))
            if not len(words):
                continue
            columns = np.arange(width)
            inside = columns < lengths[words][:, None]
            symbols = np.full(inside.shape, NOTHING)
            symbols[inside] = characters[(starts[words][:, None] + columns)[inside]]
            merged = self._merge(symbols, keys[words])
            ids = np.where(merged == NOTHING, NOTHING, self._ids[merged])
            is_known = ((ids == NOTHING) == (merged == NOTHING)).all(1)
            yield words[is_known], ids[is_known]

    def _merge(self, symbols: Numbers, keys: Keys) -> Numbers:
        """Characters of words (w, L) → their subwords (w, L), both filled up with `NOTHING`."""
        result = symbols.copy()
        going = np.arange(len(symbols))  # words that aren't done, each with one symbol less after every step
        ranks, merged = self._look_up(symbols[:, :-1], symbols[:, 1:])
        for step in range(symbols.shape[1] - 1):
            candidates = np.where(self._is_kept(keys[going], step, ranks.shape[1]), ranks, NEVER)
            places = candidates.argmin(1)
            is_going = candidates[np.arange(len(going)), places] < NEVER
            done = going[~is_going]
            result[done, : symbols.shape[1]] = symbols[~is_going]
            result[done, symbols.shape[1] :] = NOTHING
            going, places = going[is_going], places[is_going]
            if not len(going):
                return result
            symbols, ranks, merged = self._merge_at(places, symbols[is_going], ranks[is_going], merged[is_going])
        result[going] = NOTHING
        result[going, : symbols.shape[1]] = symbols
        return result

    def _merge_at(
        self, places: Numbers, symbols: Numbers, ranks: Ranks, merged: Numbers
    ) -> tuple[Numbers, Ranks, Numbers]:
        """Makes the pair at `places` (w,) one symbol: (w, L) symbols, (w, L − 1) pairs → one less of each."""
        rows = np.arange(len(places))
        columns = np.arange(ranks.shape[1])
        new = merged[rows, places]
        symbols = np.take_along_axis(symbols, columns + (columns > places[:, None]), axis=1)
        symbols[rows, places] = new
        if symbols.shape[1] == 1:
            return symbols, ranks[:, :0], merged[:, :0]
        kept = columns[:-1] + (columns[:-1] >= places[:, None])
        ranks, merged = np.take_along_axis(ranks, kept, axis=1), np.take_along_axis(merged, kept, axis=1)
        for left in (places - 1, places):  # the pairs that the new symbol is in
            inside = (left >= 0) & (left < ranks.shape[1])
            row, left = rows[inside], left[inside]
            ranks[row, left], merged[row, left] = self._look_up(symbols[row, left], symbols[row, left + 1])
        return symbols, ranks, merged

    def _look_up(self, first: Numbers, second: Numbers) -> tuple[Ranks, Numbers]:
        """Rank and result of the merge of neighbours, any shape; `NEVER` where there is none."""
        pairs = np.where((first < 0) | (second < 0), NOTHING, first * len(self._ids) + second)
        places = np.minimum(np.searchsorted(self._pairs, pairs), len(self._pairs) - 1)
        is_there = self._pairs[places] == pairs
        return np.where(is_there, self._ranks[places], NEVER).astype(np.int32), self._merged[places]

    def _is_kept(self, keys: Keys, step: int, width: int) -> Mask:
        """Which pairs aren't dropped in a step: (w, width)."""
        places = np.arange(step * WIDTHS[-1], step * WIDTHS[-1] + width, dtype=np.uint64)
        numbers = _mixed(keys[:, None] + places * _GOLDEN) >> np.uint64(32)
        kept: Mask = numbers >= np.uint64(round(self.probability * 2**32))
        return kept


def line_keys(rows: Numbers, copies: int, *numbers: int) -> Keys:
    """Keys of `copies` cuts of some rows, copy-major: (copies·r,) uint64, of (numbers…, copy, row).

    Args:
        rows: (r,) int64, numbers of the rows in their corpus.
        copies: M.
        numbers: what else the key is of: seed, epoch, side.
    """
    key = np.zeros(1, dtype=np.uint64)
    for number in numbers:
        key = _mixed(key + np.array([number % 2**64], dtype=np.uint64) * _GOLDEN + _GOLDEN)
    key = _mixed(key + np.arange(1, copies + 1, dtype=np.uint64) * _GOLDEN)
    return _mixed(key[:, None] + (rows.astype(np.uint64) + np.uint64(1)) * _GOLDEN).flatten()


def _mixed(numbers: Keys) -> Keys:
    """SplitMix64's finaliser (Steele et al. 2014)."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))


def _ranges(firsts: Numbers, counts: Numbers) -> Numbers:
    """The numbers first, first + 1, … of each, `counts` of them, one after the other."""
    return np.repeat(firsts - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())


def _joined(tokens: Numbers, sizes: Numbers, new_sizes: Numbers, cuts: list[tuple[Numbers, Numbers]]) -> Numbers:
    """All words one after the other: as they were (`sizes` tokens each), or as they were cut (`new_sizes`)."""
    firsts = np.cumsum(new_sizes) - new_sizes
    joined = np.empty(new_sizes.sum(), dtype=np.int64)
    is_cut = np.zeros(len(sizes), dtype=np.bool_)
    for words, ids in cuts:
        is_cut[words] = True
        columns = np.arange(ids.shape[1])
        inside = ids != NOTHING
        joined[(firsts[words][:, None] + columns)[inside]] = ids[inside]
    joined[_ranges(firsts[~is_cut], sizes[~is_cut])] = tokens[np.repeat(~is_cut, sizes)]
    return joined
