"""Limits of texts: how long an example may be, whether longer ones are left out, and how often a text may come."""

from __future__ import annotations

from collections.abc import Callable

from seqba.errors import UserError

LARGEST_WEIGHT = 1000
"""Most times that an epoch has a text: an epoch of more would hardly end, and its order not fit into memory."""


def longest_sides(positions: tuple[int, int], max_tokens: int | None) -> tuple[int, int]:
    """Longest source and target that the model's positions hold, and that alone don't exceed a batch."""
    source, target = positions
    return (source, target) if max_tokens is None else (min(source, max_tokens), min(target, max_tokens))


def batch_tokens(max_tokens: int | None, batch_size: int | None, default: int) -> int | None:
    """The token budget of a batch: as given, or `default` where no size of a batch is given at all."""
    return default if max_tokens is None and batch_size is None else max_tokens


def refuse_or_leave_out(
    complaint: str, *, leave_out: bool, warn: Callable[[str], None], remedy: str = "shorten them"
) -> None:
    """Refuses examples that are too long, or says that they are left out.

    Args:
        complaint: how many, how long, and which.
        leave_out: --skip-invalid-size-inputs-valid-test.
        warn: takes the line that says so.
        remedy: what else can be done.

    Raises:
        UserError: unless they are left out.
    """
    if not leave_out:
        raise UserError(f"{complaint}: {remedy}, or add --skip-invalid-size-inputs-valid-test")
    warn(f"{complaint}: left out")
