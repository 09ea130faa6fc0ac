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
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from seqba.errors import UserError, quoted

if TYPE_CHECKING:
    from typing_extensions import dataclass_transform
else:

    def dataclass_transform(**_: bool) -> Callable[[Any], Any]:
        """What typing has from Python 3.11 on, which matters to type checkers alone."""
        return lambda decorator: decorator


Options = TypeVar("Options")

LARGEST = 2**31 - 1
"""The most that a whole number may be where its option names no other maximum."""


@dataclass_transform(frozen_default=True)
def options(kind: type[Options]) -> type[Options]:
    """Makes a class a frozen dataclass whose fields are checked against their ranges before its own `__post_init__`.

    Constructing it raises `UserError` for a value out of its range, naming the flag, the value and the range.
    """
    inherited: Callable[[Any], None] = getattr(kind, "__post_init__", _nothing_more)

    def check(self: Any) -> None:
        _check_ranges(self)
        inherited(self)

    kind.__post_init__ = check  # type: ignore[attr-defined]
    return dataclasses.dataclass(frozen=True)(kind)


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
    read: Callable[[str], Any] | None = None,
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
        read: text on a command line → value, or a ValueError that says what is wrong; None for the field's type.
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
        "read": read,
    }
    return dataclasses.field(default=default, metadata=metadata)


def _nothing_more(_options: Any) -> None:
    """What is checked of options that have ranges alone."""


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


class OutOfRange(UserError):
    """A number that an option can't have.

    Attributes:
        name: of the option.
        reason: "it must be at least 1".
    """

    def __init__(self, name: str, number: str, reason: str) -> None:
        super().__init__(f"{flag_of(name)} is {number}; {reason}")
        self.name = name
        self.reason = reason


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
    return kind(**frozen)


def _is_of(value: Any, annotation: Any) -> bool:
    """Whether a value has the type of a field; a whole number is a real one too."""
    if typing.get_origin(annotation) in (types.UnionType, typing.Union):
        return any(_is_of(value, each) for each in typing.get_args(annotation))
    if typing.get_origin(annotation) is tuple:
        return isinstance(value, tuple) and all(_is_of(each, typing.get_args(annotation)[0]) for each in value)
    if typing.get_origin(annotation) is typing.Literal:
        return value in typing.get_args(annotation)
    return type(value) is annotation or (annotation is float and type(value) is int)


def _check_ranges(options: Any) -> None:
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        for each in value if isinstance(value, tuple) else (value,):
            _check_range(field.name, each, field.metadata)


def _check_range(name: str, value: Any, metadata: Any) -> None:
    choices = metadata.get("choices")
    if choices is not None and value is not None and value not in choices:
        raise UserError(f"{flag_of(name)} is {quoted(str(value))}; choose one of: {', '.join(choices)}")
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return
    told = number_text(value)
    if not math.isfinite(value):
        raise OutOfRange(name, told, "it must be a finite number")
    if isinstance(value, int) and metadata.get("maximum") is None and value > LARGEST:
        raise OutOfRange(name, told, f"it must be at most {LARGEST}")
    bounds = {
        "minimum": ("at least", operator.ge),
        "above": ("greater than", operator.gt),
        "maximum": ("at most", operator.le),
        "below": ("less than", operator.lt),
    }
    for key, (words, holds) in bounds.items():
        bound = metadata.get(key)
        if bound is not None and not holds(value, bound):
            raise OutOfRange(name, told, f"it must be {words} {number_text(bound)}")


def plain_options(options: Any) -> dict[str, Any]:
    """An options dataclass as plain values that `weights_only` accepts and JSON can hold."""
    plain: dict[str, Any] = _plain(dataclasses.asdict(options))
    return plain


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, tuple) else value
