"""Exceptions that every command knows: what the user can mend, and a group of processes that came apart."""

from __future__ import annotations

import re

_LINE_BREAKS = re.compile(r"\s*[\r\n]\s*")


class UserError(Exception):
    """A mistake or a bad file, told in one line: what is wrong, where, and what to do.

    Libraries raise it for input that comes from outside (files, options); a programming mistake stays a `ValueError`.
    Commands print it as a line and exit with status 2.
    """

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


class RanksLost(RuntimeError):
    """Another rank has ended, or didn't answer in time."""


def one_line(message: str) -> str:
    """A message without line breaks; blanks within its lines, a path's say, stay as they are."""
    return _LINE_BREAKS.sub(" ", message.strip())


def quoted(text: str) -> str:
    """Text of a user between quotes, as it was given: `repr` would escape blanks and bytes that are not UTF-8."""
    return f"'{text}'"
