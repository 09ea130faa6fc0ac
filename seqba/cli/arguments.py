"""Command lines made from option dataclasses, with errors that teach."""

from __future__ import annotations

import argparse
import ast
import dataclasses
import difflib
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, TypeVar

from seqba.errors import UserError
from seqba.options import check_options, flag_of

Options = TypeVar("Options")


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows defaults, but not that a flag is off or an option not given."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default in (None, False) else super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """An argument parser whose mistakes are `UserError`s and which never guesses at abbreviated flags.

    Args:
        unsupported: options of fairseq that seqba does not have, each with what to use instead.
    """

    def __init__(self, prog: str, description: str, *, unsupported: Mapping[str, str] | None = None) -> None:
        super().__init__(
            prog=prog,
            description=description,
            allow_abbrev=False,
            formatter_class=_HelpFormatter,
        )
        self.unsupported = dict(unsupported or {})

    def error(self, message: str) -> NoReturn:
        """Raises the message as a `UserError`."""
        raise UserError(f"{self.prog}: {message} (see {self.prog} --help)")

    def add_options(self, options: type, title: str) -> None:
        """Adds a flag for every field of a frozen dataclass made with `seqba.options.option`."""
        group = self.add_argument_group(title)
        types_of = typing.get_type_hints(options)
        for field in dataclasses.fields(options):
            _add_flag(group, field, types_of[field.name])

    def parse(self, arguments: Sequence[str] | None = None) -> argparse.Namespace:
        """Parses a command line; unknown flags are errors that name the nearest known one.

        Raises:
            UserError: for a mistake on the command line.
        """
        namespace, unknown = self.parse_known_args(arguments)
        if unknown:
            self._refuse(unknown[0])
        return namespace

    def _refuse(self, argument: str) -> NoReturn:
        flag = argument.split("=", 1)[0]
        if flag in self.unsupported:
            raise UserError(f"{self.prog}: {flag} is not an option here: {self.unsupported[flag]}")
        known = [string for action in self._actions for string in action.option_strings]
        near = difflib.get_close_matches(flag, known, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UserError(f"{self.prog}: unknown argument {argument!r}{hint} (see {self.prog} --help)")


def read_options(namespace: argparse.Namespace, options: type[Options]) -> Options:
    """Builds the dataclass from a parsed command line and checks its ranges.

    Raises:
        UserError: for a value outside its range.
    """
    values = {field.name: getattr(namespace, field.name) for field in dataclasses.fields(typing.cast(Any, options))}
    built = options(**values)
    check_options(built)
    return built


def _add_flag(group: argparse._ArgumentGroup, field: dataclasses.Field[Any], annotation: Any) -> None:
    metadata = field.metadata
    aliases = [alias if alias.startswith("-") else "--" + alias for alias in metadata["aliases"]]
    flags = [*(alias for alias in aliases if len(alias) == 2), flag_of(field.name), *(a for a in aliases if len(a) > 2)]
    text = metadata["help"].replace("%", "%%")
    if annotation is bool:
        group.add_argument(*flags, dest=field.name, action="store_true", default=field.default, help=text)
        return
    kind = plain_type(annotation)
    group.add_argument(
        *flags,
        dest=field.name,
        type=_list_of(typing.get_args(kind)[0]) if typing.get_origin(kind) is tuple else kind,
        default=field.default,
        choices=metadata["choices"],
        nargs=None if metadata["bare"] is None else "?",
        const=metadata["bare"],
        metavar=metadata["metavar"] or (None if metadata["choices"] else _metavar(kind)),
        help=text,
    )


def plain_type(annotation: Any) -> Any:
    """`int | None` → `int`."""
    if typing.get_origin(annotation) in (types.UnionType, typing.Union):
        return next(kind for kind in typing.get_args(annotation) if kind is not type(None))
    return annotation


def _metavar(kind: Any) -> str:
    return {int: "N", float: "X", str: "TEXT"}.get(kind, "X,Y")


def _list_of(kind: type) -> Callable[[str], tuple[Any, ...]]:
    """`0.9,0.98`, `(0.9, 0.98)` and `[0.9, 0.98]` are the same pair, as in fairseq's command lines."""

    def parse(text: str) -> tuple[Any, ...]:
        try:
            value = ast.literal_eval(text if text.strip()[:1] in "([" else f"({text},)")
            numbers = tuple(kind(number) for number in value)
            if not numbers or any(number != given for number, given in zip(numbers, value, strict=True)):
                raise ValueError
            return numbers
        except (ValueError, SyntaxError, TypeError, OverflowError):
            words = "whole numbers like 4 or 1,2" if kind is int else "numbers like 0.9,0.98"
            raise argparse.ArgumentTypeError(f"{text!r} is not a list of {words}") from None

    return parse
