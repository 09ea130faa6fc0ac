"""Command lines made from option dataclasses, with errors that teach."""

from __future__ import annotations

import argparse
import ast
import dataclasses
import difflib
import functools
import re
import sys
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, TypeVar

from seqba.errors import UserError, quoted
from seqba.options import OutOfRange, flag_of

Options = TypeVar("Options")
NEGATIVE_NUMBER = re.compile(r"-(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$")


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
        without_effect: flags that were given and change nothing, in the order of the command line.
    """

    __slots__ = ("typed", "without_effect")
    typed: dict[str, str]
    without_effect: list[str]

    def __init__(self) -> None:
        super().__init__()
        self.typed = {}
        self.without_effect = []


class Parser(argparse.ArgumentParser):
    """An argument parser whose mistakes are `UserError`s and which never guesses at abbreviated flags.

    Args:
        unsupported: options of fairseq that seqba does not have, each with what to use instead.
        unsupported_values: flag → value of fairseq's → what to use instead.
        accepted: options of fairseq that change nothing here.
    """

    def __init__(
        self,
        prog: str,
        description: str,
        *,
        unsupported: Mapping[str, str] | None = None,
        unsupported_values: Mapping[str, Mapping[str, str]] | None = None,
        accepted: Mapping[str, Accepted] | None = None,
    ) -> None:
        super().__init__(
            prog=prog,
            description=description,
            allow_abbrev=False,
        )
        self.unsupported = dict(unsupported or {})
        self.unsupported_values = dict(unsupported_values or {})
        self.accepted = dict(accepted or {})
        self._negative_number_matcher = NEGATIVE_NUMBER  # argparse's own takes -1e-3 for a flag
        self._declared: dict[str, tuple[argparse.Action, dataclasses.Field[Any], Any]] = {}
        self._typed: dict[str, str] = {}
        self._arguments: list[str] = []
        for flag, option in self.accepted.items():
            _add_accepted(self, flag, option)

    def error(self, message: str) -> NoReturn:
        """Raises the message as a `UserError`; what argparse quotes of the command line is shown as it was given."""
        for text in self._arguments:
            message = message.replace(repr(text), quoted(text))
        raise UserError(f"{self.prog}: {message} (see {self.prog} --help)")

    def add_options(self, options: type, title: str) -> None:
        """Adds a flag for every field of a frozen dataclass made with `seqba.options.option`.

        A flag that isn't given leaves nothing in the namespace, so that what was given is known; `read_options` fills
        in the default. A field that an earlier dataclass has too is the same flag, declared once: both read it.

        Raises:
            ValueError: if the two fields don't take the same values.
        """
        group = self.add_argument_group(title)
        types_of = typing.get_type_hints(options)
        for field in dataclasses.fields(options):
            kind = types_of[field.name]
            if field.name in self._declared:
                action, first, first_kind = self._declared[field.name]
                _check_same_flag(first, first_kind, field, kind)
                if field.default != first.default:
                    action.help = f"{action.help}; of {title}{_default_of(field) or ' (no default)'}"
            else:
                self._declared[field.name] = (_add_flag(group, field, kind, self._typed), field, kind)

    def help_of(self, concerns: Callable[[str], bool]) -> str:
        """Help on the options whose names `concerns` is true of, and on arguments that are no options."""
        hidden = [action for action in self._actions if action.option_strings and not concerns(action.dest)]
        texts = [action.help for action in hidden]
        for action in hidden:
            action.help = argparse.SUPPRESS
        shown = self.format_help()
        for action, text in zip(hidden, texts, strict=True):
            action.help = text
        return shown

    def parse(self, arguments: Sequence[str] | None = None) -> Given:
        """Parses a command line; unknown flags are errors that name the nearest known one.

        Raises:
            UserError: for a mistake on the command line.
        """
        self._typed.clear()
        given = sys.argv[1:] if arguments is None else arguments
        self._arguments = [part for text in given for part in (text, text.partition("=")[2])]
        namespace, unknown = self.parse_known_args(arguments, Given())
        namespace.typed = dict(self._typed)
        if unknown:
            self._refuse(unknown[0])
        return namespace

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """The check of argparse, after that for a value of fairseq's which has another one here."""
        for flag in action.option_strings:
            instead = self.unsupported_values.get(flag, {}).get(value)
            if instead is not None:
                raise UserError(f"{self.prog}: {flag} {value} is not one here: {instead}")
        super()._check_value(action, value)

    def _refuse(self, argument: str) -> NoReturn:
        flag = argument.split("=", 1)[0]
        if flag in self.unsupported:
            raise UserError(f"{self.prog}: {flag} is not an option here: {self.unsupported[flag]}")
        known = [string for action in self._actions for string in action.option_strings]
        near = difflib.get_close_matches(flag, known, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UserError(f"{self.prog}: unknown argument {quoted(argument)}{hint} (see {self.prog} --help)")


def read_options(namespace: argparse.Namespace, options: type[Options]) -> Options:
    """Builds the dataclass from a parsed command line, with its own defaults for the rest.

    Raises:
        UserError: for a value outside its range.
    """
    names = [field.name for field in dataclasses.fields(typing.cast(Any, options))]
    typed = namespace.typed if isinstance(namespace, Given) else {}
    try:
        return options(**{name: getattr(namespace, name) for name in names if hasattr(namespace, name)})
    except OutOfRange as error:
        if error.name not in typed:
            raise
        # As it was given: 1e-3, not 0.001.
        raise OutOfRange(error.name, typed[error.name], error.reason) from None


def _check_same_flag(first: dataclasses.Field[Any], first_kind: Any, other: dataclasses.Field[Any], kind: Any) -> None:
    """Refuses two fields of one flag unless it means the same for both; ranges are each field's own."""
    for key in ("choices", "aliases", "bare"):
        if first.metadata[key] != other.metadata[key]:
            raise ValueError(f"{flag_of(other.name)} is declared twice, with different {key}")
    if plain_type(first_kind) != plain_type(kind):
        raise ValueError(f"{flag_of(other.name)} is declared twice, as {first_kind} and as {kind}")


def _default_of(field: dataclasses.Field[Any]) -> str:
    """Text ` (default: 3)`, written as it would be given; empty for a flag that is off or an option without default."""
    default = field.default
    if isinstance(default, tuple):
        default = ",".join(map(str, default)) or None
    return "" if default is None or default is False else f" (default: {default})".replace("%", "%%")


def _add_flag(
    group: argparse._ArgumentGroup, field: dataclasses.Field[Any], annotation: Any, typed: dict[str, str]
) -> argparse.Action:
    metadata = field.metadata
    aliases = [alias if alias.startswith("-") else "--" + alias for alias in metadata["aliases"]]
    flags = [*(alias for alias in aliases if len(alias) == 2), flag_of(field.name), *(a for a in aliases if len(a) > 2)]
    text = metadata["help"].replace("%", "%%") + _default_of(field)
    if annotation is bool:
        return group.add_argument(*flags, dest=field.name, action="store_true", default=argparse.SUPPRESS, help=text)
    kind = plain_type(annotation)
    return group.add_argument(
        *flags,
        dest=field.name,
        type=_list_of(typing.get_args(kind)[0])
        if typing.get_origin(kind) is tuple
        else _noting(_reader(metadata["read"]) or kind, field.name, typed),
        default=argparse.SUPPRESS,
        choices=metadata["choices"],
        nargs=None if metadata["bare"] is None else "?",
        const=metadata["bare"],
        metavar=metadata["metavar"] or (None if metadata["choices"] else _metavar(kind)),
        help=text,
    )


class _NoteOnly(argparse.Action):
    """Notes that a flag was given; its value, checked by then, is forgotten."""

    def __call__(
        self,
        _parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        _values: Any,
        option_string: str | None = None,
    ) -> None:
        if isinstance(namespace, Given) and option_string not in namespace.without_effect:
            namespace.without_effect.append(str(option_string))


def _add_accepted(parser: argparse.ArgumentParser, flag: str, option: Accepted) -> None:
    kind: Any = _truth if option.kind is bool else option.kind
    parser.add_argument(
        flag,
        action=_NoteOnly,
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


def _list_of(kind: type) -> Callable[[str], tuple[Any, ...]]:
    """Parser of `0.9,0.98`, `(0.9, 0.98)` and `[0.9, 0.98]`, the same pair, as in fairseq's command lines."""

    def parse(text: str) -> tuple[Any, ...]:
        try:
            value = ast.literal_eval(text if text.strip()[:1] in "([" else f"({text},)")
            numbers = tuple(kind(number) for number in value)
            if not numbers or any(number != given for number, given in zip(numbers, value, strict=True)):
                raise ValueError
            return numbers
        except (ValueError, SyntaxError, TypeError, OverflowError):
            words = "whole numbers like 4 or 1,2" if kind is int else "numbers like 0.9,0.98"
            raise argparse.ArgumentTypeError(f"{quoted(text)} is not a list of {words}") from None

    return parse
