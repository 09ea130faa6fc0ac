"""Options in a file: TOML or YAML under the flags' names, each with the line that it stands on."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seqba.cli.flags import NumberList, separator_of
from seqba.data.files import open_file
from seqba.data.lines import decode_text
from seqba.errors import UserError
from seqba.extras import needed

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclass(frozen=True)
class Setting:
    """An option that a file sets.

    Attributes:
        key: its name as it is written.
        value: of the file's own type.
        place: the file and its line, for messages.
    """

    key: str
    value: Any
    place: str


def config_paths(arguments: Sequence[str]) -> list[str]:
    """The files that a command line names with --config, in order; none where it asks for help."""
    if {"-h", "--help"} & set(arguments):
        return []
    words = iter(arguments)
    paths = []
    for word in words:
        if word == "--config":
            paths += [path for path in [next(words, None)] if path is not None]
        elif word.startswith("--config="):
            paths.append(word.partition("=")[2])
    return paths


def read_settings(path: str) -> list[Setting]:
    """The options that a file sets: TOML, or YAML where PyYAML is installed.

    Raises:
        UserError: for a file that can't be read, or isn't in the form that its name says.
    """
    kind = Path(path).suffix.lower()
    readers = {".toml": _read_toml, ".yaml": _read_yaml, ".yml": _read_yaml}
    if kind not in readers:
        raise UserError(f"--config {path}: its name must end in .toml, or in .yaml or .yml")
    with open_file(path, "--config") as file:
        text = decode_text(file.read(), path)
    try:
        return list(readers[kind](path, text))
    except RecursionError:
        raise UserError(f"--config {path}: it is nested too deeply; options stand at the top") from None


def words_of(action: argparse.Action, value: Any) -> list[str]:
    """A file's value as the words of a command line that would follow the flag.

    Raises:
        TypeError: for a value of another type than the option's; its text says what it takes.
    """
    separator = separator_of(action)
    if isinstance(value, bool):
        if action.nargs == 0 or (action.const is not None and value):
            return []
        if action.const is None and action.nargs == "?":
            return [str(value)]
    elif isinstance(value, list) and value:
        if action.nargs in ("+", "*"):
            return [_word(action, each) for each in value]
        if separator is not None:
            return [separator.join(_part(action, each, separator) for each in value)]
    elif action.nargs != 0:
        return [_word(action, value)]
    raise TypeError(f"is {_shown(value)}; it takes {_type_name(action)}")


def _part(action: argparse.Action, value: Any, separator: str) -> str:
    """A value of a list that becomes one word."""
    word = _word(action, value)
    if separator in word:
        raise TypeError(f"has {_shown(value)} in its list, where {separator!r} stands between two values: part them")
    return word


def _word(action: argparse.Action, value: Any) -> str:
    """A single value as a word, of the option's type."""
    kind = _kind_of(action)
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    fits = {str: isinstance(value, str), int: is_number and isinstance(value, int), float: is_number}
    if not fits.get(kind, is_number or isinstance(value, str)):
        hint = f': write it in quotes, "{value}"' if kind is str and is_number else ""
        raise TypeError(f"is {_shown(value)}; it takes {_type_name(action)}{hint}")
    return value if isinstance(value, str) else repr(value)


def _kind_of(action: argparse.Action) -> Any:
    """The type of a value, or what makes it of a text."""
    return getattr(action.type, "__wrapped__", action.type) or str


_TYPES: dict[Any, str] = {str: "text", int: "a whole number", float: "a number"}


def _type_name(action: argparse.Action) -> str:
    kind = _kind_of(action)
    if action.nargs == 0 or (action.nargs == "?" and action.const is None and action.option_strings):
        return "true or false"
    if isinstance(kind, NumberList):
        return "a list of numbers"
    if kind not in _TYPES:
        return str(action.metavar)
    several = action.nargs in ("+", "*") or separator_of(action) is not None
    return f"{_TYPES[kind]}, or a list of {_TYPES[kind]}" if several else _TYPES[kind]


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    return f"'{value}'" if isinstance(value, str) else "nothing" if value is None else str(value)


def _read_toml(path: str, text: str) -> Iterator[Setting]:
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"--config {path} is not TOML: {error}") from None
    for key, value in values.items():
        line = _toml_line(text, key)
        yield Setting(key, value, path if line is None else f"{path} line {line}")


def _toml_line(text: str, key: str) -> int | None:
    """The line on which a key of the top stands; None where it can't be told."""
    pattern = re.compile(rf"""\s*(\[+\s*)?["']?{re.escape(key)}["']?\s*[=.\]]""")
    return next((number for number, line in enumerate(text.split("\n"), start=1) if pattern.match(line)), None)


def _read_yaml(path: str, text: str) -> Iterator[Setting]:
    yaml = needed("yaml", f"--config {path}")
    loader = yaml.SafeLoader(text)
    # YAML 1.1 takes 5e-4 for text: its numbers with an exponent have a point and a sign.
    loader.yaml_implicit_resolvers = {start: list(rules) for start, rules in loader.yaml_implicit_resolvers.items()}
    number = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$")
    for start in "-+.0123456789":
        loader.yaml_implicit_resolvers.setdefault(start, []).insert(0, ("tag:yaml.org,2002:float", number))
    try:
        root = loader.get_single_node()
        if root is None:
            return
        if not isinstance(root, yaml.MappingNode):
            raise UserError(f"--config {path} is not a table of options: write them like lr: 0.0005")
        for key, value in root.value:
            place = f"{path} line {key.start_mark.line + 1}"
            yield Setting(str(key.value), loader.construct_object(value, deep=True), place)
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"--config {path} is not YAML: {error}") from None
    finally:
        loader.dispose()
