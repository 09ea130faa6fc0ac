"""Detokenisation: ids → tokens, words, plain text."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from seqba.data.dictionary import Dictionary
from seqba.data.moses import Moses
from seqba.data.subwords import Segmenter, Subwords, remove_bpe


@dataclass(frozen=True)
class TextForm:
    """Text form of one side of a corpus."""

    dictionary: Dictionary
    """Symbols of the ids."""

    subwords: Segmenter | None = None
    """The data-bin's own SentencePiece model or tokenizer if its text was made with one, or what --bpe names."""

    post_process: str | None = None
    """How to join subwords, as `seqba.data.subwords.remove_bpe` has it; None leaves them apart."""

    words: Moses | None = None
    """Tokenizer of the text before its subwords; None where words are what spaces separate."""

    @property
    def is_plain(self) -> bool:
        """Whether `plain` gives text as people write it, and not tokens separated by spaces."""
        has_plain_subwords = self.subwords is not None and self.subwords.is_plain
        return self.words is not None or has_plain_subwords or self.post_process == "sentencepiece"

    @property
    def bleu_tokenizer(self) -> str:
        """Tokeniser that BLEU needs for `plain`, by sacreBLEU's name."""
        return "13a" if self.is_plain else "none"

    def encode(self, line: str) -> npt.NDArray[np.int64]:
        """Ids (L,) of a line of text, end of sentence included."""
        text = line if self.words is None else self.words.tokenize(line)
        return self.dictionary.encode(text.split() if self.subwords is None else self.subwords.encode(text))

    def tokens(self, ids: Iterable[int], *, reference: bool = False) -> str:
        """Symbols separated by spaces, joined into words where `post_process` says how (fairseq's H- line).

        Args:
            ids: word ids; padding, beginning and end are left out.
            reference: write an unknown word as `<<unk>>`, so that no translation can match it.
        """
        symbols = self._symbols(ids, reference=reference)
        if isinstance(self.subwords, Subwords) and self.post_process == "sentencepiece":
            return self.subwords.decode(symbols)
        return remove_bpe(" ".join(symbols), self.post_process)

    def shown(self, ids: Iterable[int]) -> str:
        """The same, with the characters that bytes spell in their place (the S- line of seqba-interactive)."""
        text = self.tokens(ids)
        if not isinstance(self.subwords, Subwords) or self.post_process is not None:
            return text
        return " ".join(self.subwords.spell(text.split(" ")))

    def plain(self, ids: Iterable[int], *, reference: bool = False) -> str:
        """The same as plain text, where subwords and tokenizer are known (fairseq's D- line).

        Subwords that are known are joined by themselves, whatever `post_process` says: pieces of SentencePiece have no
        `@@ ` that could be taken out, and BLEU of them would be another number.
        """
        if self.subwords is not None:
            text = self.subwords.decode(self._symbols(ids, reference=reference))
        else:
            text = self.tokens(ids, reference=reference)
        return text if self.words is None else self.words.detokenize(text)

    def _symbols(self, ids: Iterable[int], *, reference: bool) -> list[str]:
        symbols = self.dictionary.decode(ids)
        if not reference:
            return symbols
        unknown = self.dictionary.symbols[Dictionary.unk]
        return [f"<{symbol}>" if symbol == unknown else symbol for symbol in symbols]
