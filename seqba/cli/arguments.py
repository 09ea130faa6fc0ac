"""Command lines made from option dataclasses, with errors that teach."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import re
import sys
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn, TypeVar

from seqba.cli.config_file import Setting, config_paths, read_settings, words_of
from seqba.cli.flags import (
    Accepted,
    Given,
    NoteOnly,
    Off,
    add_accepted,
    add_flag,
    add_off,
    check_same_flag,
    default_of,
    plain_type,
)
from seqba.errors import UserError, quoted
from seqba.options import OutOfRange

__all__ = ["Accepted", "Given", "Parser", "plain_type", "read_options"]

Options = TypeVar("Options")
NEGATIVE_NUMBER = re.compile(r"-(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$")


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
        self.add_argument(
            "--config",
            metavar="FILE",
            action=NoteOnly,
            default=argparse.SUPPRESS,
            help="take options from this file, TOML or YAML, under their names here; flags go before it, and --no-NAME "
            "switches off what it switches on (docs/config.md)",
        )
        for flag, option in self.accepted.items():
            add_accepted(self, flag, option)

    def format_help(self) -> str:
        """Help on all options; the line of usage names what is always given, and no option that may be left out."""
        given = [action for action in self._actions if action.required or not action.option_strings]
        self.usage = " ".join([self.prog, *map(_usage_of, given), "[options]"])
        return super().format_help()

    def print_help(self, file: Any = None) -> None:
        """Prints the help; where it can't be written that is an error, which argparse's own keeps to itself."""
        print(self.format_help(), end="", file=file)

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
                check_same_flag(first, first_kind, field, kind)
                if field.default != first.default:
                    action.help = f"{action.help}; of {title}{default_of(field) or ' (no default)'}"
            else:
                action = add_flag(group, field, kind, self._typed)
                self._declared[field.name] = (action, field, kind)
                if kind is bool:
                    add_off(self, action)

    @property
    def _shown_flags(self) -> list[str]:
        return [flag for action in self._actions if not isinstance(action, Off) for flag in action.option_strings]

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
        """Parses a command line and the files of --config; unknown flags are errors that name the nearest known one.

        Flags go before files, and later files before earlier ones.

        Raises:
            UserError: for a mistake on the command line or in a file.
        """
        given = sys.argv[1:] if arguments is None else list(arguments)
        settings = [read_settings(path) for path in config_paths(given)]
        filed = Given()
        for file in settings:
            self._set_all(file, filed)
        self._typed.clear()
        self._arguments = [part for text in given for part in (text, text.partition("=")[2])]
        with self._not_required(filed):
            namespace, unknown = self.parse_known_args(given, Given())
        namespace.typed = dict(self._typed)
        if unknown:
            self._refuse(unknown[0])
        namespace.without_effect = [flag for flag in namespace.without_effect if flag != "--config"]
        return _filled(namespace, filed)

    def _set_all(self, settings: Sequence[Setting], filed: Given) -> None:
        """Sets the options of a file, each as if its flag had been given.

        Raises:
            UserError: naming the file and the line.
        """
        before: dict[str, Setting] = {}
        for setting in settings:
            action, flag = self._action_of(setting)
            if action.dest in before:
                first = before[action.dest]
                raise UserError(
                    f"{setting.place}: {setting.key} is set twice, before as {first.key} ({first.place}): leave one out"
                )
            before[action.dest] = setting
            self._typed.clear()
            try:
                if setting.value is False and action.nargs == 0:
                    if action.const is True:
                        setattr(filed, action.dest, False)
                else:
                    words = words_of(action, setting.value)
                    self._arguments = words
                    action(self, filed, self._get_values(action, words), flag)
            except TypeError as error:
                raise UserError(f"{setting.place}: {setting.key} {error}") from None
            except argparse.ArgumentError as error:
                raise UserError(f"{setting.place}: {setting.key}: {error.message}") from None
            except UserError as error:
                raise UserError(f"{setting.place}: {error}") from None
            filed.places[action.dest] = setting.place
            filed.typed |= self._typed

    def _action_of(self, setting: Setting) -> tuple[argparse.Action, str]:
        """The option that a key names, and its flag; the name of an argument stands for itself.

        Raises:
            UserError: for a key that is neither.
        """
        name = setting.key.replace("_", "-")
        for action in self._actions:
            if action.dest in ("help", "config") or isinstance(action, Off):
                continue
            flags = [flag for flag in action.option_strings if flag.replace("_", "-") == f"--{name}"]
            own_names = [] if action.option_strings else [action.dest, str(action.metavar).lower()]
            if flags or setting.key in own_names:
                return action, next(iter(flags), setting.key)
        if name in ("help", "config"):
            raise UserError(f"{setting.place}: {setting.key} stands on the command line alone")
        if isinstance(setting.value, dict):
            raise UserError(
                f"{setting.place}: {setting.key} is a table: options stand at the top of the file, outside tables"
            )
        try:
            self._refuse(f"--{name}")
        except UserError as error:
            raise UserError(f"{setting.place}: {error}") from None

    @contextmanager
    def _not_required(self, filed: Given) -> Iterator[None]:
        """Inside, the arguments that files give needn't be on the command line, and have no defaults."""
        actions = [action for action in self._actions if hasattr(filed, action.dest)]
        kept = [(action.required, action.nargs, action.default) for action in actions]
        for action in actions:
            action.required, action.default = False, argparse.SUPPRESS
            if not action.option_strings:
                action.nargs = "*" if action.nargs in ("+", "*") else "?"
        try:
            yield
        finally:
            for action, (required, nargs, default) in zip(actions, kept, strict=True):
                action.required, action.nargs, action.default = required, nargs, default

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
        near = difflib.get_close_matches(flag, self._shown_flags, n=1)
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
        if error.name in typed:  # as it was given: 1e-3, not 0.001
            error = OutOfRange(error.name, typed[error.name], error.reason)
        if isinstance(namespace, Given) and error.name in namespace.places:
            raise UserError(f"{namespace.places[error.name]}: {error}") from None
        raise error from None


def _filled(namespace: Given, filed: Given) -> Given:
    """A command line, and what files say beside it."""
    for name, value in vars(filed).items():
        if not hasattr(namespace, name):
            setattr(namespace, name, value)
            namespace.places[name] = filed.places[name]
            if name in filed.typed:
                namespace.typed[name] = filed.typed[name]
    namespace.without_effect += [flag for flag in filed.without_effect if flag not in namespace.without_effect]
    return namespace


def _usage_of(action: argparse.Action) -> str:
    """An argument in the line of usage: `data`, `[data]`, `RUN [RUN ...]`, `--inputs FILE [FILE ...]`."""
    name = str(action.metavar or action.dest)
    forms = {"?": f"[{name}]", "+": f"{name} [{name} ...]"}
    return " ".join([*action.option_strings[:1], forms.get(str(action.nargs), name)])
