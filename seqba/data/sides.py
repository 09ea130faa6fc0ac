"""Both sides of a translation's text: language, dictionary and subwords of each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from seqba.data.dictionary import Dictionary
from seqba.data.marian import read_marian_text
from seqba.data.subwords import Subwords, load_subwords
from seqba.data.tokenizer_json import JsonTokenizer
from seqba.errors import UserError


@dataclass(frozen=True)
class Side:
    """One language's way from text to ids.

    Attributes:
        language: its name.
        dictionary: its symbols.
        subwords: segments its text; None for text that is tokens already.
    """

    language: str
    dictionary: Dictionary
    subwords: Subwords | JsonTokenizer | None


def open_side(folder: Path, language: str) -> Side:
    """A language of a data-bin.

    Raises:
        UserError: for a dictionary that isn't there, or a file that is broken.
    """
    path = folder / f"dict.{language}.txt"
    if not path.exists():
        raise UserError(
            f"data-bin {folder} has no {path.name}: copy it from the data-bin that the model was trained on (text made "
            "with --only-source has the source's dictionary alone)"
        )
    dictionary = Dictionary.load(path)
    return Side(language, dictionary, load_subwords(folder, language, dictionary))


def marian_sides(folder: Path) -> tuple[Side, Side]:
    """Both languages of a Marian folder.

    Raises:
        UserError: as `seqba.data.marian.read_marian_text`.
    """
    text = read_marian_text(folder)
    source, target = text.languages
    return (
        Side(source, text.source.dictionary, text.source_subwords),
        Side(target, text.target.dictionary, text.target_subwords),
    )
