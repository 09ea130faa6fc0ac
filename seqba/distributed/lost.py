"""Errors of a collective as what they mean: another process of the group ended, or gave no answer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from seqba.errors import RanksLost


@contextmanager
def collective_errors() -> Iterator[None]:
    """Turns errors of a collective into `RanksLost`: torch has no type of its own for it.

    Raises:
        RanksLost: in place of any `RuntimeError`.
    """
    try:
        yield
    except RuntimeError as error:
        raise RanksLost(str(error).partition("\n")[0]) from error
