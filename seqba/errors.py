"""The one exception that means: the user can mend this. Commands print it as a line and exit with status 2."""

from __future__ import annotations


class UserError(Exception):
    """A mistake or a bad file, told in one line: what is wrong, where, and what to do.

    Libraries raise it for input that comes from outside (files, options); a programming mistake stays a `ValueError`.
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))
