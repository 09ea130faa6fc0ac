"""Symbols and their ids, in fairseq's order and file format."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from seqba.data.files import atomic_text, read_lines
from seqba.errors import UserError, quoted

OVERWRITE = "#fairseq:overwrite"
REMEDY = "check the folder and the language, or make it with seqba-preprocess"


class Dictionary:
    """A mapping between symbols and consecutive ids.

    The four special symbols come first and are never written to the file: `<s>` = 0, `<pad>` = 1, `</s>` = 2,
    `<unk>` = 3. The first line of `dict.LANG.txt` is therefore id 4.

    Args:
        words: (symbol, count) of the ordinary symbols in the order of their ids. A repeated symbol takes over the
            name: the earlier id stays, but nothing is encoded to it any more (fairseq's `#fairseq:overwrite`).

    Attributes:
        symbols: symbol of every id.
        counts: how often each was seen in the training text (1 for the specials, as fairseq has it).
    """

    bos = 0
    pad = 1
    eos = 2
    unk = 3
    specials = ("<s>", "<pad>", "</s>", "<unk>")

    def __init__(self, words: Iterable[tuple[str, int]] = ()) -> None:
        pairs = list(words)
        self.symbols = [*self.specials, *(symbol for symbol, _ in pairs)]
        self.counts = [1] * len(self.specials) + [count for _, count in pairs]
        self._index = {symbol: index for index, symbol in enumerate(self.symbols)}

    def __len__(self) -> int:
        """Number of symbols, the special ones included."""
        return len(self.symbols)

    def __contains__(self, symbol: str) -> bool:
        """Whether the symbol has an id of its own."""
        return symbol in self._index

    def __eq__(self, other: object) -> bool:
        """Whether every id means the same symbol; counts may differ."""
        return isinstance(other, Dictionary) and self.symbols == other.symbols

    __hash__ = None  # type: ignore[assignment]

    def index(self, symbol: str) -> int:
        """The id of `symbol`, or that of `<unk>`."""
        return self._index.get(symbol, self.unk)

    def lookup(self, tokens: Iterable[str]) -> Iterator[int]:
        """Ids of the tokens, that of `<unk>` for unknown ones, and no `</s>`."""
        return map(self._index.get, tokens, itertools.repeat(self.unk))  # all in C: one call for each token of a corpus

    def encode(self, tokens: Iterable[str]) -> npt.NDArray[np.int64]:
        """Ids of the tokens, and `</s>` at the end: (len + 1,) int64."""
        return np.array([*self.lookup(tokens), self.eos], dtype=np.int64)

    def decode(self, ids: Iterable[int]) -> list[str]:
        """Symbols of the ids, without `<s>`, `<pad>` and `</s>`; an unknown word stays `<unk>`."""
        symbols = self.symbols
        dropped = (self.bos, self.pad, self.eos)
        return [symbols[index] for index in map(int, ids) if index not in dropped]

    @classmethod
    def build(
        cls, counts: Mapping[str, int], *, threshold: int = 0, size: int = -1, padding_factor: int = 8
    ) -> Dictionary:
        """Makes a dictionary as `fairseq-preprocess` does.

        Count descending, ties in code point order; then `madeupword0000`, `madeupword0001`, … until the size divides
        by `padding_factor`. Special symbols that occur in the text as words keep their ids.

        Args:
            counts: how often each word occurs; the order of the mapping has no influence.
            threshold: words seen less often are left out.
            size: largest number of symbols, the four special ones included and the padding not; <= 0 for no limit.
            padding_factor: 1 for no padding.
        """
        words = [(word, count) for word, count in counts.items() if word not in cls.specials]
        words.sort(key=lambda pair: (-pair[1], pair[0]))
        if size > 0:
            words = words[: max(0, size - len(cls.specials))]
        return cls.padded([pair for pair in words if pair[1] >= threshold], padding_factor)

    @classmethod
    def padded(cls, words: Iterable[tuple[str, int]], padding_factor: int) -> Dictionary:
        """Words in their order, then `madeupword0000`, … until the size divides by `padding_factor`; 1 for none."""
        words = list(words)
        known = {word for word, _ in words}
        number = 0
        while padding_factor > 1 and (len(cls.specials) + len(words)) % padding_factor:
            filler = f"madeupword{number:04d}"
            number += 1
            if filler not in known:  # a text may hold such a word: somebody's detokenised output, say
                words.append((filler, 0))
        return cls(words)

    @classmethod
    def load(cls, path: str | Path) -> Dictionary:
        """Reads `symbol count` lines, with fairseq's `#fairseq:overwrite` flag where there is one.

        As in fairseq, a count may be negative: nothing but the order of a dictionary that is made depends on counts.

        Raises:
            UserError: for a missing, empty or malformed file, or a symbol given twice without the flag.
        """
        lines = read_lines(path, "dictionary", REMEDY)
        if not lines:
            raise UserError(f"dictionary {path} is empty; {REMEDY}")
        seen = set(cls.specials)
        words = []
        for number, line in enumerate(lines, start=1):
            symbol, count, overwrite = _parse_line(line, f"dictionary {path}, line {number}")
            if symbol in seen and not overwrite:
                raise UserError(
                    f"dictionary {path}, line {number}: {quoted(symbol)} is there twice; remove one, or end the line "
                    f"with {OVERWRITE} to let it replace the earlier one"
                )
            seen.add(symbol)
            words.append((symbol, count))
        return cls(words)

    def save(self, path: str | Path) -> None:
        """Writes `symbol count` lines, as fairseq does; what `load` read comes out the same, flags included."""
        seen = set(self.specials)
        with atomic_text(path) as file:
            for symbol, count in zip(self.symbols[len(seen) :], self.counts[len(seen) :], strict=True):
                file.write(f"{symbol} {count} {OVERWRITE}\n" if symbol in seen else f"{symbol} {count}\n")
                seen.add(symbol)


def dictionary_digest(dictionary: Dictionary) -> str:
    """SHA-256 of the symbols in the order of their ids, as hexadecimal."""
    return hashlib.sha256("\n".join(dictionary.symbols).encode()).hexdigest()


def is_described_by(dictionary: Dictionary, size: int, digest: str | None) -> bool:
    """Whether a dictionary has the size and the digest that a checkpoint keeps; None where it keeps no digest."""
    return size == len(dictionary) and digest in (None, dictionary_digest(dictionary))


def _parse_line(line: str, where: str) -> tuple[str, int, bool]:
    """Symbol, count and whether it may replace an earlier one, as fairseq's `Dictionary.add_from_file` reads them.

    A count is whatever `int()` reads: `-1`, `+3` and `1_000` as well.
    """
    fields = line.rstrip().rsplit(" ", 1)
    overwrite = len(fields) == 2 and fields[1] == OVERWRITE
    if overwrite:
        fields = fields[0].rsplit(" ", 1)
    try:
        symbol, count = fields
        return symbol, int(count), overwrite
    except ValueError:
        raise UserError(f"{where}: {quoted(line[:60])} is not '<symbol> <count>'; is this a dictionary?") from None
