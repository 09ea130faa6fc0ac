r"""File names: several in one text, and those that are not UTF-8.

Python holds the bytes of the latter as lone surrogates, which no encoding writes by itself. Two handlers of encoding
errors, for `open(errors=…)`: to streams such a name goes as it was given, byte for byte; into text files, which stay
UTF-8, with `\xe9` for the byte E9, as `$'…'` in a shell takes it. Where the locale is ASCII, names that are UTF-8 come
as such bytes too; they are written as what they are.
"""

from __future__ import annotations

import codecs
import os
from collections.abc import Sequence

AS_GIVEN = "seqba.as_given"
ESCAPED = "seqba.escaped"


def name_bytes(name: str) -> bytes:
    """A name in UTF-8, its undecodable bytes as they are on the disk: for digests."""
    return name.encode("utf-8", AS_GIVEN)


def name_text(name: str) -> str:
    """A name that any program takes as text, its undecodable bytes escaped."""
    return name.encode("utf-8", ESCAPED).decode("utf-8")


def split_paths(text: str) -> list[str]:
    """Paths that stand between colons; one that exists keeps the colons of its name (runs/10:30).

    The whole text is one path where that exists, else it is cut wherever all of its paths exist, else at each colon.
    """
    pieces = text.split(":")
    return [text] if os.path.exists(text) else _existing_paths(pieces) or [path for path in pieces if path]


def _existing_paths(pieces: Sequence[str]) -> list[str] | None:
    """Pieces put together to paths that all exist, first ones short; None where they can't be."""
    of_rest: list[list[str] | None] = [[]]  # for the pieces from each one on, the last ones first
    for start in reversed(range(len(pieces))):
        found = of_rest[0] if not pieces[start] else None
        for end in range(start + 1, len(pieces) + 1):
            path, others = ":".join(pieces[start:end]), of_rest[end - start - 1]
            if found is None and pieces[start] and others is not None and os.path.exists(path):
                found = [path, *others]
        of_rest.insert(0, found)
    return of_rest[0]


def _write_as_given(error: UnicodeError) -> tuple[bytes, int]:
    r"""Lone surrogates → the bytes that they stand for; others, which stand for none, → `\ud800`."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    codes = map(ord, error.object[error.start : error.end])
    written = (bytes([code - 0xDC00]) if 0xDC80 <= code <= 0xDCFF else b"\\u%04x" % code for code in codes)
    return b"".join(written), error.end


def _write_escaped(error: UnicodeError) -> tuple[bytes, int]:
    """The same with every byte escaped that is not UTF-8."""
    data, end = _write_as_given(error)
    return data.decode("utf-8", "backslashreplace").encode("utf-8"), end


codecs.register_error(AS_GIVEN, _write_as_given)
codecs.register_error(ESCAPED, _write_escaped)
