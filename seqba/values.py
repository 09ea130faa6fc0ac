"""Values that callers pass: described in a message, and taken as whole numbers."""

from __future__ import annotations

import operator
from collections.abc import Mapping

from torch import Tensor


def described(value: object) -> str:
    """A value in a message: its type, and its shape or the value itself where that is short."""
    kind = type(value).__name__
    if isinstance(value, Tensor):
        return f"a {str(value.dtype).removeprefix('torch.')} tensor of shape {tuple(value.shape)}"
    if isinstance(value, Mapping):
        return f"a {kind} with keys {', '.join(map(repr, value)) or 'of nothing'}"[:200]
    if isinstance(value, (tuple, list)):
        return f"a {kind} of {len(value)}"
    return "None" if value is None else f"{value!r} (a {kind})"[:200]


def whole_number(name: str, value: object) -> int:
    """An argument that counts or numbers something: any whole number, of any library.

    Raises:
        TypeError: for anything else, naming it.
    """
    try:
        if isinstance(value, bool):
            raise TypeError
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"{name} must be a whole number, not {described(value)}") from None
