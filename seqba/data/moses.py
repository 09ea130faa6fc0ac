"""Moses' tokens and subword-nmt's BPE: text of the classical recipes, both ways."""

from __future__ import annotations

import functools
import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seqba.data.files import read_lines
from seqba.data.subwords import remove_bpe
from seqba.errors import UserError, quoted
from seqba.extras import needed


@dataclass(frozen=True)
class Moses:
    """Moses' tokenizer and detokenizer of a language, as sacremoses ports them.

    Attributes:
        language: whose rules for abbreviations and apostrophes hold; English's where Moses has none for it.
        dash_splits: whether hyphens become tokens (`@-@`).
        escape: whether characters that Moses' formats use are written as `&apos;`, `&quot;`, ….

    Raises:
        UserError: at the first use, where sacremoses isn't installed.
    """

    language: str
    dash_splits: bool = True
    escape: bool = True

    def tokenize(self, line: str) -> str:
        """A line of text → tokens between single spaces."""
        tokens: str = _tokenizer(self.language).tokenize(
            line, aggressive_dash_splits=self.dash_splits, return_str=True, escape=self.escape
        )
        return " ".join(tokens.split())

    def detokenize(self, line: str) -> str:
        """Tokens between spaces → a line of text."""
        text: str = _detokenizer(self.language).detokenize(line.split())
        return text


class BytePairs:
    """BPE of subword-nmt: words to subwords of which all but a word's last end in a separator, and back.

    Args:
        codes: the file of merges that `subword-nmt learn-bpe` wrote.
        separator: what a subword that goes on ends in.

    Raises:
        UserError: for a file that isn't one, or where subword-nmt isn't installed.
    """

    is_plain = False

    def __init__(self, codes: str | Path, separator: str = "@@") -> None:
        lines = read_lines(codes, "BPE codes")
        for number, line in enumerate(lines, 1):
            if not line.startswith("#version:") and len(line.split(" ")) != 2:
                raise UserError(
                    f"BPE codes {codes}, line {number} is {quoted(line[:60])}, not two subwords: give the file that "
                    "subword-nmt learned"
                )
        self.separator = separator
        apply_bpe = needed("subword_nmt.apply_bpe", "--bpe subword_nmt")
        self._bpe = apply_bpe.BPE(io.StringIO("".join(f"{line}\n" for line in lines)), separator=separator)

    def encode(self, line: str) -> list[str]:
        """Subwords of a line of tokens: "mammal species" → ["mam@@", "mal", "species"]."""
        subwords: list[str] = self._bpe.process_line(line).split()
        return subwords

    def decode(self, tokens: Iterable[str]) -> str:
        """Words of the subwords, between spaces."""
        return remove_bpe(" ".join(tokens), f"{self.separator} ")


# They compile hundreds of patterns.
@functools.cache
def _tokenizer(language: str) -> Any:
    return needed("sacremoses", "--tokenizer moses").MosesTokenizer(lang=language)


@functools.cache
def _detokenizer(language: str) -> Any:
    return needed("sacremoses", "Moses' detokenizer").MosesDetokenizer(lang=language)
