"""Flags made from the fields of option dataclasses, and what a parsed command line is."""

from __future__ import annotations

import argparse
import ast
import dataclasses
import functools
import re
import types
import typing
from collections.abc import Callable
from typing import Any

from seqba.errors import quoted
from seqba.options import flag_of


@dataclasses.dataclass(frozen=True)
class Accepted:
    """An option of another program that is taken and changes nothing here.

    Attributes:
        reason: why it changes nothing.
        kind: type of its value; None for a switch, bool for one that may have a value (`True`, `False`).
        choices: the values that change nothing; None for all.
    """

    reason: str
    kind: type | None = None
    choices: tuple[str, ...] | None = None


class Given(argparse.Namespace):
    """A parsed command line; its `vars` are the options that were given.

    Attributes:
        typed: option → its text on the command line, of those that aren't taken as text.
        places: option → the file and line that set it, of those that a file of --config sets and no flag.
        without_effect: flags that were given and change nothing, in the order of the command line.
    """

    __slots__ = ("places", "typed", "without_effect")
    typed: dict[str, str]
    places: dict[str, str]
    without_effect: list[str]

    def __init__(self) -> None:
        super().__init__()
        self.typed = {}
        self.places = {}
        self.without_effect = []

    def where(self, name: str) -> str:
        """Text ` (config.toml line 3)` for an option that a file sets; empty for a flag."""
        return f" ({self.places[name]})" if name in self.places else ""


def check_same_flag(first: dataclasses.Field[Any], first_kind: Any, other: dataclasses.Field[Any], kind: Any) -> None:
    """Refuses two fields of one flag unless it means the same for both; ranges are each field's own."""
    for key in ("choices", "aliases", "bare"):
        if first.metadata[key] != other.metadata[key]:
            raise ValueError(f"{flag_of(other.name)} is declared twice, with different {key}")
    if plain_type(first_kind) != plain_type(kind):
        raise ValueError(f"{flag_of(other.name)} is declared twice, as {first_kind} and as {kind}")


def default_of(field: dataclasses.Field[Any]) -> str:
    """Text ` (default: 3)`, written as it would be given; empty for a flag that is off or an option without default."""
    default = field.default
    if isinstance(default, tuple):
        default = ",".join(map(str, default)) or None
    return "" if default is None or default is False or default == "" else f" (default: {default})".replace("%", "%%")


def add_flag(
    group: argparse._ArgumentGroup, field: dataclasses.Field[Any], annotation: Any, typed: dict[str, str]
) -> argparse.Action:
    """Adds the flag of a field to a group; numbers note their text in `typed`."""
    metadata = field.metadata
    aliases = [alias if alias.startswith("-") else "--" + alias for alias in metadata["aliases"]]
    flags = [*(alias for alias in aliases if len(alias) == 2), flag_of(field.name), *(a for a in aliases if len(a) > 2)]
    text = metadata["help"].replace("%", "%%") + default_of(field)
    if annotation is bool:
        return group.add_argument(*flags, dest=field.name, action="store_true", default=argparse.SUPPRESS, help=text)
    kind = plain_type(annotation)
    return group.add_argument(
        *flags,
        dest=field.name,
        type=NumberList(typing.get_args(kind)[0])
        if typing.get_origin(kind) is tuple
        else _noting(_reader(metadata["read"]) or kind, field.name, typed),
        default=argparse.SUPPRESS,
        choices=metadata["choices"],
        nargs=None if metadata["bare"] is None else "?",
        const=metadata["bare"],
        metavar=metadata["metavar"] or (None if metadata["choices"] else _metavar(kind)),
        help=text,
    )


class Off(argparse._StoreFalseAction):
    """`--no-NAME`, which switches off what a file of --config switches on; help doesn't show it."""


def add_off(parser: argparse.ArgumentParser, switch: argparse.Action) -> None:
    """Adds the opposite of a switch; that of `--no-save` is `--save`."""
    flags = [_opposite(flag) for flag in switch.option_strings if flag.startswith("--")]
    parser.add_argument(*flags, dest=switch.dest, action=Off, default=argparse.SUPPRESS, help=argparse.SUPPRESS)


def _opposite(flag: str) -> str:
    return f"--{flag.removeprefix('--no-')}" if flag.startswith("--no-") else f"--no-{flag.removeprefix('--')}"


class NoteOnly(argparse.Action):
    """Notes that a flag was given; its value, checked by then, is forgotten."""

    def __call__(
        self,
        _parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        _values: Any,
        option_string: str | None = None,
    ) -> None:
        """Notes the flag."""
        if isinstance(namespace, Given) and option_string not in namespace.without_effect:
            namespace.without_effect.append(str(option_string))


def add_accepted(parser: argparse.ArgumentParser, flag: str, option: Accepted) -> None:
    """Adds an option that is taken and changes nothing."""
    kind: Any = _truth if option.kind is bool else option.kind
    parser.add_argument(
        flag,
        action=NoteOnly,
        nargs=0 if kind is None else "?" if kind is _truth else None,
        type=kind,
        choices=option.choices,
        default=argparse.SUPPRESS,
        help=argparse.SUPPRESS,
    )


def _truth(text: str) -> bool:
    """Python's and a shell's words for a truth value."""
    words = {"true": True, "1": True, "false": False, "0": False}
    if text.lower() not in words:
        raise argparse.ArgumentTypeError(f"{quoted(text)} is neither True nor False")
    return words[text.lower()]


def _reader(read: Callable[[str], Any] | None) -> Callable[[str], Any] | None:
    """A function of an option's text whose complaints are argparse's."""
    if read is None:
        return None

    def convert(text: str) -> Any:
        try:
            return read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return convert


def _noting(kind: Any, name: str, typed: dict[str, str]) -> Any:
    """Type of a number that records its text as well."""
    if kind is str:
        return kind

    @functools.wraps(kind, updated=())
    def convert(text: str) -> Any:
        value = kind(text)
        typed[name] = text
        return value

    return convert


def plain_type(annotation: Any) -> Any:
    """`int | None` → `int`."""
    if typing.get_origin(annotation) in (types.UnionType, typing.Union):
        return next(kind for kind in typing.get_args(annotation) if kind is not type(None))
    return annotation


def _metavar(kind: Any) -> str:
    return {int: "N", float: "X", str: "TEXT"}.get(kind, "X,Y")


@dataclasses.dataclass(frozen=True)
class NumberList:
    """Parser of `0.9,0.98`, `(0.9, 0.98)` and `[0.9, 0.98]`, the same pair, as in fairseq's command lines.

    Attributes:
        kind: of its numbers.
    """

    kind: type

    def __call__(self, text: str) -> tuple[Any, ...]:
        """The numbers of a text."""
        try:
            value = ast.literal_eval(text if text.strip()[:1] in "([" else f"({text},)")
            numbers = tuple(self.kind(number) for number in value)
            if not numbers or any(number != given for number, given in zip(numbers, value, strict=True)):
                raise ValueError
            return numbers
        except (ValueError, SyntaxError, TypeError, OverflowError, MemoryError, RecursionError):
            words = "whole numbers like 4 or 1,2" if self.kind is int else "numbers like 0.9,0.98"
            raise argparse.ArgumentTypeError(f"{quoted(text[:60])} is not a list of {words}") from None


def separator_of(action: argparse.Action) -> str | None:
    """Separator of the values of an option that takes several in one word, as its help shows; None for a single value.

    `NAME[,NAME]` → `,`, `A.pt[:B.pt]` → `:`.
    """
    if isinstance(action.type, NumberList):
        return ","
    several = re.search(r"\[([,:])", str(action.metavar))
    return several and several[1]
