"""SentencePiece models that live in the data folder, and the way back from subwords to words."""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from seqba.data.dictionary import Dictionary
from seqba.data.files import open_file
from seqba.data.tokenizer_json import TOKENIZER_NAME, JsonTokenizer, read_tokenizer
from seqba.errors import UserError
from seqba.extras import needed

MODEL_NAME = "sentencepiece.model"
"""A data folder's model for both languages; where each has its own, as from a Marian folder, see `model_name`."""


class Segmenter(Protocol):
    """Interface of what splits lines into subwords and joins these."""

    @property
    def is_plain(self) -> bool:
        """Whether lines are text as people write it, and not words that a tokenizer has set apart."""
        ...

    def encode(self, line: str) -> list[str]:
        """Subwords of a line."""
        ...

    def decode(self, tokens: Iterable[str]) -> str:
        """The line of some subwords."""
        ...


WORD_START = "\u2581"  # SentencePiece writes a space as this: "▁"
LANGUAGE_CODE = re.compile(">>.*?<<")
BYTE_PIECE = re.compile("<0x[0-9A-F]{2}>")


class Subwords:
    """A SentencePiece model: plain text to pieces and back.

    Args:
        model: the bytes of a `.model` file.
        where: the file's name, for messages.
        codes: names of languages like `>>fra<<`; one with which a line begins is a token of its own, as in models for
            several target languages.

    Raises:
        UserError: if the bytes are not a SentencePiece model.
    """

    is_plain = True

    def __init__(self, model: bytes, where: str = MODEL_NAME, codes: Iterable[str] = ()) -> None:
        self.model = model
        self.codes = frozenset(codes)
        self._processor = needed("sentencepiece", "a SentencePiece model").SentencePieceProcessor()
        try:
            self._processor.LoadFromSerializedProto(model)
        except RuntimeError:
            raise UserError(f"{where} is not a SentencePiece model; preprocess again with --sentencepiece") from None
        ids = range(len(self))
        self._bytes = frozenset(self._processor.IdToPiece(i) for i in ids if self._processor.IsByte(i))

    def __len__(self) -> int:
        """Number of pieces, the special ones included."""
        return int(self._processor.GetPieceSize())

    def __reduce__(self) -> tuple[type[Subwords], tuple[bytes, str, frozenset[str]]]:
        """Goes between processes as the bytes of the model."""
        return Subwords, (self.model, MODEL_NAME, self.codes)

    def with_codes(self, codes: Iterable[str]) -> Subwords:
        """The same model, with names of languages."""
        return Subwords(self.model, codes=codes)

    def encode(self, line: str) -> list[str]:
        """Pieces of a line of plain text: "Hello world." → ["▁Hello", "▁world", "."]."""
        return self.encode_lines([line])[0]

    def encode_lines(self, lines: Sequence[str]) -> list[list[str]]:
        """Pieces of many lines, faster than one by one."""
        codes = [self._code(line) for line in lines] if self.codes else [""] * len(lines)
        texts = [line[len(code) :] for line, code in zip(lines, codes, strict=True)]
        pieces: list[list[str]] = self._processor.Encode(texts, out_type=str)
        return [[code, *own] if code else own for code, own in zip(codes, pieces, strict=True)]

    def _code(self, line: str) -> str:
        """Name of a language with which a line begins; empty if it begins with none."""
        found = LANGUAGE_CODE.match(line)
        return found[0] if found and found[0] in self.codes else ""

    def decode(self, tokens: Iterable[str]) -> str:
        """Plain text of the pieces, as one line; an `<unk>` among them stays visible.

        The pieces of a model with byte fallback spell the bytes of a character; a model without one has no such
        pieces, and there `<0xE2>` is text like any other.
        """
        return join_pieces(tokens, self._bytes.__contains__)

    def spell(self, tokens: Iterable[str]) -> list[str]:
        """The pieces, those that are bytes put together into the characters that they spell."""
        return [piece for piece, _ in _spelt(tokens, self._bytes.__contains__)]

    def scores(self) -> dict[str, float]:
        """Score of every piece that text is cut into; not of `<unk>`, control symbols and bytes."""
        processor = self._processor
        kinds = (processor.IsUnknown, processor.IsControl, processor.IsByte, processor.IsUnused)
        own = (i for i in range(len(self)) if not any(is_kind(i) for is_kind in kinds))
        return {processor.IdToPiece(i): processor.GetScore(i) for i in own}

    def vocabulary(self) -> str:
        """The pieces and their scores, one `piece<TAB>score` a line, as SentencePiece's own `.vocab` files."""
        processor = self._processor
        return "".join(f"{processor.IdToPiece(i)}\t{processor.GetScore(i):g}\n" for i in range(len(self)))


def load_subwords(data_dir: str | Path, language: str, dictionary: Dictionary) -> Subwords | JsonTokenizer | None:
    """The SentencePiece model or the tokenizer of a language in a data folder, or None if its text was made with none.

    Args:
        data_dir: the folder.
        language: its own model is taken before the one of both languages.
        dictionary: of the language; with a model of its own, names of languages in it (`>>fra<<`) are whole tokens.

    Raises:
        UserError: if the model is there, but cannot be used.
    """
    own, joint = Path(data_dir) / model_name(language), Path(data_dir) / MODEL_NAME
    tokenizer = Path(data_dir) / TOKENIZER_NAME
    if own.exists():
        return read_subwords(own).with_codes(language_codes(dictionary.symbols))
    if tokenizer.exists():
        return read_tokenizer(tokenizer)
    return read_subwords(joint) if joint.exists() else None


def model_name(language: str | None) -> str:
    """File of the model of one language, or of all for None."""
    return MODEL_NAME if language is None else f"sentencepiece.{language}.model"


def language_codes(symbols: Iterable[str]) -> list[str]:
    """The names of languages among the symbols of a dictionary."""
    return [symbol for symbol in symbols if symbol.startswith(">>") and LANGUAGE_CODE.fullmatch(symbol)]


def read_subwords(path: str | Path) -> Subwords:
    """Reads a SentencePiece `.model` file.

    Raises:
        UserError: if the file cannot be read or is not a SentencePiece model.
    """
    with open_file(path, "SentencePiece model") as file:
        return Subwords(file.read(), f"SentencePiece model {path}")


def train_subwords(lines: Iterable[str], size: int) -> Subwords:
    """Learns a BPE model of `size` pieces from lines of plain text, with every character of the text covered.

    Deterministic: the same lines give the same model. Lines of more than 4,192 bytes teach nothing (SentencePiece's
    own limit), but can be encoded.

    Args:
        lines: the text, of both languages for a joint model.
        size: number of pieces, `<unk>`, `<s>` and `</s>` included.

    Raises:
        UserError: if the text is too small or has too many characters for `size` pieces.

    Source: Sennrich et al. 2016 (BPE); Kudo and Richardson 2018 (SentencePiece).
    """
    model = io.BytesIO()
    try:
        needed("sentencepiece", "--sentencepiece").SentencePieceTrainer.Train(
            sentence_iterator=iter(lines),
            model_writer=model,
            vocab_size=size,
            model_type="bpe",
            character_coverage=1.0,
            num_threads=1,
            minloglevel=2,
        )
    except (RuntimeError, ValueError, OverflowError) as error:
        reason = str(error).rsplit("] ", 1)[-1].strip()
        raise UserError(f"SentencePiece cannot learn {size} pieces from this text: {reason}") from None
    return Subwords(model.getvalue())


def join_pieces(pieces: Iterable[str], is_byte: Callable[[str], object] = BYTE_PIECE.fullmatch) -> str:
    """SentencePiece's pieces → plain text, as one line.

    Bytes are decoded as SentencePiece's `DecodePieces` does: each one that is no UTF-8 becomes U+FFFD. Bytes that are a
    line end become a space, since a sentence is a line in whatever reads it next.

    Args:
        pieces: `▁` stands for a space.
        is_byte: whether a piece spells a byte. Where the model isn't known, every `<0xE2>` does: pieces of that form
            are those of byte fallback.
    """
    spelt = _spelt(pieces, is_byte)
    return "".join(text if from_bytes else text.replace(WORD_START, " ") for text, from_bytes in spelt).strip()


def _spelt(pieces: Iterable[str], is_byte: Callable[[str], object]) -> Iterator[tuple[str, bool]]:
    """Every piece, or the characters that a run of bytes spells, and whether it is of bytes."""
    for from_bytes, run in itertools.groupby(pieces, lambda piece: bool(is_byte(piece))):
        if from_bytes:
            yield _decode_bytes(bytes(int(piece[3:5], 16) for piece in run)), True
        else:
            yield from ((piece, False) for piece in run)


def _decode_bytes(data: bytes) -> str:
    """UTF-8 → text of one line; Python's own "replace" takes several wrong bytes for one U+FFFD."""
    text = ""
    while data:
        try:
            text, data = text + data.decode("utf-8"), b""
        except UnicodeDecodeError as error:
            text += data[: error.start].decode("utf-8") + "\ufffd"
            data = data[error.start + 1 :]
    return text.replace("\n", " ").replace("\r", " ")


def remove_bpe(text: str, symbol: str | None) -> str:
    """Joins subwords back into words, as fairseq's `--remove-bpe`/`--post-process` does.

    Unlike there, "sentencepiece" decodes the pieces of byte fallback too (see `join_pieces`).

    Args:
        text: tokens separated by spaces.
        symbol: "subword_nmt", "@@ " or "@@" (fairseq's default), "sentencepiece", "wordpiece", "letter", "_EOW",
            "none" or None for nothing to do; any other string is a joint to remove, like "@@ ".
    """
    spaces = {"wordpiece": "_", "letter": "|", "_EOW": "_EOW"}
    if symbol is None or symbol == "none":
        return text
    if symbol == "sentencepiece":
        return join_pieces(text.split(" "))
    if symbol in spaces:
        return text.replace(" ", "").replace(spaces[symbol], " ").strip()
    joint = "@@ " if symbol in ("subword_nmt", "@@") else symbol
    return (text + " ").replace(joint, "").rstrip()
