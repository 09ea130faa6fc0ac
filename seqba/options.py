"""Options as frozen dataclasses: one line of help, a default and a range for each field, and nothing of argparse.

The library reads plain fields; `seqba.cli.arguments` makes the flags out of the same fields, so that an option is
declared in exactly one place.
"""

from __future__ import annotations

import dataclasses
import math
import operator
from collections.abc import Sequence
from typing import Any

from seqba.errors import UserError

LARGEST = 2**31 - 1
"""The most that a whole number may be where its option names no other maximum."""


def option(
    default: Any,
    help: str,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    above: float | None = None,
    below: float | None = None,
    choices: Sequence[str] | None = None,
    aliases: Sequence[str] = (),
    metavar: str | None = None,
    bare: str | None = None,
) -> Any:
    """A dataclass field that is also an option: `label_smoothing` becomes `--label-smoothing`.

    Args:
        default: the value when the flag is absent; `None` means "not given".
        help: one line: meaning, unit, source.
        minimum: smallest allowed value (inclusive).
        maximum: largest allowed value (inclusive).
        above: exclusive lower bound.
        below: exclusive upper bound.
        choices: the allowed words.
        aliases: other spellings of the flag: `max-sentences` becomes `--max-sentences`, `-s` stays a short flag.
        metavar: the placeholder shown by `--help`.
        bare: the value of the flag without a value; None if it must have one.
    """
    metadata = {
        "help": help,
        "minimum": minimum,
        "maximum": maximum,
        "above": above,
        "below": below,
        "choices": tuple(choices) if choices is not None else None,
        "aliases": tuple(aliases),
        "metavar": metavar,
        "bare": bare,
    }
    return dataclasses.field(default=default, metadata=metadata)


def flag_of(name: str) -> str:
    """`label_smoothing` → `--label-smoothing`."""
    return "--" + name.replace("_", "-")


def is_given(options: Any, name: str) -> bool:
    """Whether an option differs from its default."""
    (field,) = (field for field in dataclasses.fields(options) if field.name == name)
    return bool(getattr(options, name) != field.default)


def check_options(options: Any) -> None:
    """Checks every field of an options dataclass against its declared range.

    Raises:
        UserError: naming the flag, the value and the range.
    """
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        for number in value if isinstance(value, tuple) else (value,):
            _check_range(flag_of(field.name), number, field.metadata)


def _check_range(flag: str, value: Any, metadata: Any) -> None:
    choices = metadata.get("choices")
    if choices is not None and value is not None and value not in choices:
        raise UserError(f"{flag} is {value!r}; choose one of: {', '.join(choices)}")
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return
    if not math.isfinite(value):
        raise UserError(f"{flag} is {value}; it must be a finite number")
    if isinstance(value, int) and metadata.get("maximum") is None and value > LARGEST:
        raise UserError(f"{flag} is {value}; it must be at most {LARGEST}")
    bounds = {
        "minimum": ("at least", operator.ge),
        "above": ("greater than", operator.gt),
        "maximum": ("at most", operator.le),
        "below": ("less than", operator.lt),
    }
    for key, (words, holds) in bounds.items():
        bound = metadata.get(key)
        if bound is not None and not holds(value, bound):
            raise UserError(f"{flag} is {value:g}; it must be {words} {bound:g}")
