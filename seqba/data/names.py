r"""File names that are not UTF-8. Python holds their bytes as lone surrogates, which no encoding writes by itself.

Two handlers of encoding errors, for `open(errors=…)`: to streams such a name goes as it was given, byte for byte; into
text files, which stay UTF-8, with `\xe9` for the byte E9, as `$'…'` in a shell takes it.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable

AS_GIVEN = "seqba.as_given"
ESCAPED = "seqba.escaped"


def name_bytes(name: str) -> bytes:
    """A name in UTF-8, its undecodable bytes as they are on the disk: for digests."""
    return name.encode("utf-8", AS_GIVEN)


def _handler(write_byte: Callable[[int], bytes]) -> Callable[[UnicodeError], tuple[bytes, int]]:
    def handle(error: UnicodeError) -> tuple[bytes, int]:
        if not isinstance(error, UnicodeEncodeError):
            raise error
        codes = map(ord, error.object[error.start : error.end])
        written = [write_byte(code - 0xDC00) if 0xDC80 <= code <= 0xDCFF else b"\\u%04x" % code for code in codes]
        return b"".join(written), error.end

    return handle


codecs.register_error(AS_GIVEN, _handler(lambda byte: bytes([byte])))
codecs.register_error(ESCAPED, _handler(lambda byte: b"\\x%02x" % byte))
