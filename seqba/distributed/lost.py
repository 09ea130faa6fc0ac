"""Another process of a group that ended, or gave no answer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class RanksLost(RuntimeError):
    """Another rank has ended, or didn't answer in time."""


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
