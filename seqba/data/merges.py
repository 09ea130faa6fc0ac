"""Merges of byte-pair encoding: what SentencePiece or subword-nmt has learned."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from seqba.data.dictionary import Dictionary
from seqba.data.files import read_lines
from seqba.data.subwords import WORD_START, Subwords, load_subwords, model_name
from seqba.data.tokenizer_json import JsonTokenizer
from seqba.errors import UserError, quoted

CODES_NAME = "bpe.codes"
"""A data folder's merges of subword-nmt, for both languages."""

CONTINUED = "@@"
WORD_END = "</w>"  # of subword-nmt's symbols; its tokens say instead which of them go on


@dataclass(frozen=True)
class Token:
    """A symbol of the dictionary, as merges see it.

    Attributes:
        symbols: the characters that merges begin with; none of a token that isn't to be taken apart (`<unk>`, a byte, a
            name of a language).
        begins: whether a word begins with it, whatever is before it.
        goes_on: whether the word goes on behind it, unless the next token begins one.
    """

    symbols: tuple[str, ...]
    begins: bool
    goes_on: bool


@dataclass(frozen=True)
class Merges:
    """Merges that a BPE has learned: which neighbours become one symbol, and which of them first.

    Attributes:
        ranks: two neighbouring symbols → their rank; the lowest of a word is merged first. They become the symbol that
            is both, one behind the other.
        where: the file that they are of, for messages.
        are_words_continued: whether tokens mark that a word goes on (`@@`, subword-nmt), or that one begins (`▁`,
            SentencePiece).
    """

    ranks: Mapping[tuple[str, str], int]
    where: str
    are_words_continued: bool

    def take_apart(self, token: str) -> Token:
        """A token of the dictionary as its characters."""
        if not self.are_words_continued:
            return Token(self._characters(tuple(token)), begins=token.startswith(WORD_START), goes_on=True)
        goes_on = token.endswith(CONTINUED) and token != CONTINUED
        text = token.removesuffix(CONTINUED) if goes_on else token
        symbols = tuple(text) if goes_on else (*text[:-1], text[-1:] + WORD_END)
        return Token(self._characters(symbols), begins=False, goes_on=goes_on)

    def token(self, symbol: str) -> str:
        """The token that a symbol is in a text."""
        if not self.are_words_continued:
            return symbol
        return symbol.removesuffix(WORD_END) if symbol.endswith(WORD_END) else symbol + CONTINUED

    def _characters(self, symbols: tuple[str, ...]) -> tuple[str, ...]:
        """The characters, if merges lead from them to the token; none otherwise."""
        merged = list(symbols)
        while len(merged) > 1:
            ranks = [self.ranks.get(pair) for pair in itertools.pairwise(merged)]
            found = [(rank, place) for place, rank in enumerate(ranks) if rank is not None]
            if not found:
                return ()
            place = min(found)[1]
            merged[place : place + 2] = ["".join(merged[place : place + 2])]
        return symbols


def load_merges(folder: Path, language: str, dictionary: Dictionary) -> Merges:
    """The merges that the subwords of a language in a data folder were made by.

    Raises:
        UserError: where the folder holds neither a SentencePiece model nor `bpe.codes`, and for a model that isn't BPE.
    """
    subwords = load_subwords(folder, language, dictionary)
    if isinstance(subwords, JsonTokenizer):
        raise UserError(
            f"--subword-sampling cuts words by a SentencePiece model or subword-nmt's codes, and {folder} has a "
            "tokenizer.json: leave it out"
        )
    if subwords is not None:
        own = folder / model_name(language)
        return merges_of_sentencepiece(subwords, str(own if own.exists() else folder / model_name(None)))
    if (folder / CODES_NAME).exists():
        return read_codes(folder / CODES_NAME)
    raise UserError(
        f"--subword-sampling cuts words anew by the merges that made the subwords, and {folder} holds neither "
        f"{model_name(None)} (seqba-preprocess --sentencepiece writes it) nor {CODES_NAME}: copy subword-nmt's codes "
        "there under this name, or leave it out"
    )


def merges_of_sentencepiece(subwords: Subwords, where: str) -> Merges:
    """Merges of a SentencePiece model of type BPE: two neighbours become one where both together are a piece.

    Raises:
        UserError: for a model of another type.
    """
    ranks = {piece: -score for piece, score in subwords.scores().items()}
    if any(rank != int(rank) or rank < 0 for rank in ranks.values()):
        raise UserError(
            f"--subword-sampling drops merges of a BPE, and {where} is a SentencePiece model of another type (unigram, "
            "say): leave it out"
        )
    pairs = {
        (piece[:cut], piece[cut:]): int(rank)
        for piece, rank in ranks.items()
        for cut in range(1, len(piece))
        if all(len(half) == 1 or half in ranks for half in (piece[:cut], piece[cut:]))
    }
    return Merges(pairs, where, are_words_continued=False)


def read_codes(path: Path) -> Merges:
    """Reads the merges that `subword-nmt learn-bpe` wrote.

    Raises:
        UserError: for a file that isn't one, or of an older version than 0.2, whose words end otherwise.
    """
    lines = read_lines(path, "BPE codes")
    if lines[:1] != ["#version: 0.2"]:
        raise UserError(
            f"--subword-sampling needs BPE codes of version 0.2, which subword-nmt writes since 0.2, and {path} begins "
            f"with {quoted(''.join(lines[:1])[:60])}: learn them anew, or leave it out"
        )
    return Merges(_ranks(lines[1:], path), str(path), are_words_continued=True)


def _ranks(lines: Iterable[str], path: Path) -> dict[tuple[str, str], int]:
    ranks: dict[tuple[str, str], int] = {}
    for rank, line in enumerate(lines):
        first, _, second = line.strip().partition(" ")
        if not first or not second or " " in second:
            raise UserError(f"BPE codes {path}, line {rank + 2} is {quoted(line[:60])}, not two subwords")
        ranks.setdefault((first, second), rank)  # as in subword-nmt, the first one counts
    return ranks
