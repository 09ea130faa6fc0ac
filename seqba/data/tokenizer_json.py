"""Hugging Face's tokenizers: plain text to the tokens of a `tokenizer.json`, and back."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from seqba.data.dictionary import Dictionary
from seqba.data.files import open_file
from seqba.data.lines import as_line
from seqba.errors import UserError
from seqba.extras import needed

TOKENIZER_NAME = "tokenizer.json"
"""A data folder's tokenizer, for both languages."""

MOST_SYMBOLS = 1 << 24


class JsonTokenizer:
    """A tokenizer of Hugging Face's tokenizers.

    Lines are encoded without the special tokens that its post-processor would add, whole (no truncation), and unpadded.
    Its unknown token is `<unk>` here. Special tokens that a line spells out, such as `<2de>`, are recognised.

    Args:
        model: the bytes of a `tokenizer.json`.
        where: the file's name, for messages.

    Attributes:
        model: the same.
        symbols: symbol of each of its ids; "" where it has none.

    Raises:
        UserError: if the bytes are no tokenizer, or the package isn't installed.
    """

    is_plain = True

    def __init__(self, model: bytes, where: str = TOKENIZER_NAME) -> None:
        self.model = model
        self.where = where
        kind = needed("tokenizers", "a tokenizer.json").Tokenizer
        with _told(f"{where} is no tokenizer of Hugging Face's tokenizers"):
            self._tokenizer = kind.from_str(model.decode("utf-8"))
            self._tokenizer.no_truncation()
            self._tokenizer.no_padding()
            unknown = _unknown_token(json.loads(model)["model"])
            vocabulary: dict[str, int] = self._tokenizer.get_vocab(with_added_tokens=True)
        size = 1 + max(vocabulary.values(), default=-1)
        if not 0 < size <= MOST_SYMBOLS:
            raise UserError(f"{where} has ids up to {size - 1}: a vocabulary has 1 to {MOST_SYMBOLS} of them")
        self.symbols = [""] * size
        for symbol, number in vocabulary.items():
            self.symbols[number] = Dictionary.specials[Dictionary.unk] if symbol == unknown else symbol

    def __reduce__(self) -> tuple[type[JsonTokenizer], tuple[bytes, str]]:
        """Goes between processes as the bytes of the file."""
        return JsonTokenizer, (self.model, self.where)

    def encode(self, line: str) -> list[str]:
        """Tokens of a line of plain text: "Hello world." → ["Hello", "Ġworld", "."]."""
        return self.encode_lines([line])[0]

    def encode_lines(self, lines: Sequence[str]) -> list[list[str]]:
        """Tokens of many lines, faster than one by one."""
        with _told(f"{self.where} can't encode a line"):
            encoded = self._tokenizer.encode_batch(list(lines), add_special_tokens=False)
        return [[self.symbols[number] for number in each.ids] for each in encoded]

    def decode(self, tokens: Iterable[str]) -> str:
        """Plain text of the tokens as one line, by the tokenizer's own decoder; an `<unk>` among them stays visible."""
        decoder: Any = self._tokenizer.decoder
        with _told(f"{self.where} can't decode tokens"):
            text: str = " ".join(tokens) if decoder is None else decoder.decode(list(tokens))
        return as_line(text)

    def dictionary(self, padding_factor: int) -> Dictionary:
        """All its symbols in the order of its ids, after our four special ones, with fillers at the end.

        Those with a line end, which a dictionary's file can't hold, are left out: no line has them.

        Args:
            padding_factor: the size is a multiple of it.
        """
        symbols = (symbol for symbol in self.symbols if symbol and symbol not in Dictionary.specials)
        words = [(symbol, 1) for symbol in symbols if as_line(symbol) == symbol]
        return Dictionary.padded(words, padding_factor)


def read_tokenizer(path: str | Path) -> JsonTokenizer:
    """Reads a `tokenizer.json`.

    Raises:
        UserError: if the file cannot be read or holds no tokenizer.
    """
    with open_file(path, "tokenizer") as file:
        return JsonTokenizer(file.read(), f"tokenizer {path}")


@contextmanager
def _told(problem: str) -> Iterator[None]:
    """Makes one line of whatever the library raises; a panic in it is not even an `Exception`."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        reason = "".join(filter(str.isprintable, str(error)))[:200]
        raise UserError(f"{problem} ({reason}): fetch or make it anew") from None


def _unknown_token(model: dict[str, Any]) -> str | None:
    """Token in the place of those that the model lacks: named, or by its number in a unigram model."""
    if model.get("type") == "Unigram" or "unk_id" in model:
        number = model.get("unk_id")
        return None if number is None else str(model["vocab"][number][0])
    return model.get("unk_token")
