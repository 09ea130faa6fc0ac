"""Parts that all language modelling shares, however the text is cut."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from seqba.data.dictionary import Dictionary, dictionary_digest
from seqba.data.monolingual import open_dictionary
from seqba.errors import UserError


def vocabulary_state(dictionary: Dictionary) -> dict[str, Any]:
    """A task's state: size and digest of the dictionary, since another one would give the ids another meaning."""
    return {
        "task": "language_modeling",
        "vocabulary": len(dictionary),
        "dictionary_sha256": dictionary_digest(dictionary),
    }


def check_same_dictionary(folder: Path, first: Path, dictionary: Dictionary) -> None:
    """Refuses a part of the data whose ids mean other words than those of the first part.

    Raises:
        UserError: naming both folders.
    """
    if folder != first and open_dictionary(folder) != dictionary:
        raise UserError(
            f"the dictionary of {folder} differs from the one of {first}: preprocess all parts with the same one "
            "(--srcdict)"
        )
