"""Tokens and ids of a piece of text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from seqba.data.dictionary import Dictionary
from seqba.data.subwords import Subwords
from seqba.data.text import TextPiece
from seqba.data.tokenizer_json import JsonTokenizer


@dataclass(frozen=True)
class Encoded:
    """The ids of a piece of text: rows one after the other, each with `</s>` at its end."""

    ids: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int32]
    unknown: int


def count_piece(piece: TextPiece, subwords: Subwords | JsonTokenizer | None) -> Counter[str]:
    """Counts of the tokens in a piece of text."""
    counts: Counter[str] = Counter()
    for tokens in _tokens(piece, subwords):
        counts.update(tokens)
    return counts


def encode_piece(piece: TextPiece, dictionary: Dictionary, subwords: Subwords | JsonTokenizer | None) -> Encoded:
    """The ids of a piece of text. Tokens are what whitespace of any kind separates, or those of `subwords`."""
    flat: list[int] = []
    sizes: list[int] = []
    literal = 0
    unknown_symbol = dictionary.specials[dictionary.unk]
    for tokens in _tokens(piece, subwords):
        flat.extend(dictionary.lookup(tokens))
        flat.append(dictionary.eos)
        sizes.append(len(tokens) + 1)
        if unknown_symbol in tokens:  # the text says "<unk>" itself: nothing was replaced
            literal += tokens.count(unknown_symbol)
    ids = np.array(flat, dtype=np.int64)
    unknown = int(np.count_nonzero(ids == dictionary.unk)) - literal
    return Encoded(ids, np.array(sizes, dtype=np.int32), unknown)


def _tokens(piece: TextPiece, subwords: Subwords | JsonTokenizer | None) -> Iterable[list[str]]:
    # str.split() without an argument is fairseq's tokenize_line: every run of whitespace separates, Unicode's included.
    return map(str.split, piece.lines()) if subwords is None else subwords.encode_lines(piece.lines())
