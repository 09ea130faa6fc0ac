"""Options as frozen dataclasses: one line of help, a default and a range for each field, and nothing of argparse.

The library reads plain fields; `seqba.cli.arguments` makes the flags out of the same fields, so that an option is
declared in exactly one place.
"""

from __future__ import annotations

import dataclasses
import math
import operator
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from seqba.errors import UserError, quoted

Options = TypeVar("Options")

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


def number_text(number: float) -> str:
    """A number with all its digits, as one would type it: 1.0 → `1`, 3000000 → `3000000`, 0.1 → `0.1`."""
    return repr(number).removesuffix(".0")


def is_given(options: Any, name: str) -> bool:
    """Whether an option differs from its default."""
    (field,) = (field for field in dataclasses.fields(options) if field.name == name)
    return bool(getattr(options, name) != field.default)


def check_options(options: Any, typed: Mapping[str, str] | None = None) -> None:
    """Checks every field of an options dataclass against its declared range.

    Args:
        options: the dataclass.
        typed: field → what stood on the command line, to be shown as it was given: `1e-3`, not 0.001.

    Raises:
        UserError: naming the flag, the value and the range.
    """
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        several = isinstance(value, tuple)
        told = None if several else (typed or {}).get(field.name)
        for number in value if several else (value,):
            _check_range(flag_of(field.name), number, field.metadata, told)


def options_from(kind: type[Options], values: Mapping[str, Any]) -> Options:
    """Options that a file holds as plain values, their names, types and ranges checked; lists become tuples.

    Raises:
        TypeError: for a name that there is no field of, or a value of another type than the field's.
        UserError: for a value out of its range.
    """
    types_of = typing.get_type_hints(kind)
    frozen = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    for name, value in frozen.items():
        if name in types_of and not _is_of(value, types_of[name]):
            raise TypeError(f"{flag_of(name)} is {value!r}")
    options = kind(**frozen)
    check_options(options)
    return options


def _is_of(value: Any, annotation: Any) -> bool:
    """Whether a value has the type of a field; a whole number is a real one too."""
    if typing.get_origin(annotation) in (types.UnionType, typing.Union):
        return any(_is_of(value, each) for each in typing.get_args(annotation))
    if typing.get_origin(annotation) is tuple:
        return isinstance(value, tuple) and all(_is_of(each, typing.get_args(annotation)[0]) for each in value)
    return type(value) is annotation or (annotation is float and type(value) is int)


def _check_range(flag: str, value: Any, metadata: Any, told: str | None) -> None:
    choices = metadata.get("choices")
    if choices is not None and value is not None and value not in choices:
        raise UserError(f"{flag} is {quoted(value)}; choose one of: {', '.join(choices)}")
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return
    told = number_text(value) if told is None else told
    if not math.isfinite(value):
        raise UserError(f"{flag} is {told}; it must be a finite number")
    if isinstance(value, int) and metadata.get("maximum") is None and value > LARGEST:
        raise UserError(f"{flag} is {told}; it must be at most {LARGEST}")
    bounds = {
        "minimum": ("at least", operator.ge),
        "above": ("greater than", operator.gt),
        "maximum": ("at most", operator.le),
        "below": ("less than", operator.lt),
    }
    for key, (words, holds) in bounds.items():
        bound = metadata.get(key)
        if bound is not None and not holds(value, bound):
            raise UserError(f"{flag} is {told}; it must be {words} {number_text(bound)}")


def plain_options(options: Any) -> dict[str, Any]:
    """An options dataclass as plain values that `weights_only` accepts and JSON can hold."""
    plain: dict[str, Any] = _plain(dataclasses.asdict(options))
    return plain


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, tuple) else value
