"""Options of a run as a file that `--config` reads: TOML under the flags' names, with nothing left to a default."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from typing import Any

from seqba import __version__
from seqba.data.names import name_text
from seqba.training.config import RunConfig
from seqba.training.options.optimisation import OWN_OPTIONS

CONFIG_FILE = "config.toml"


def config_text(config: RunConfig, arch: str, model: Mapping[str, Any]) -> str:
    """Text of a file with which seqba-train makes the same run.

    An option that has no value, or belongs to another optimizer, is left out.

    Args:
        config: the options of the run.
        arch: name of the architecture.
        model: its resolved options; those that the command line doesn't have are left out.
    """
    head = [f"# The options of a run of seqba {__version__}: seqba-train --config THIS_FILE", ""]
    return "\n".join([*head, *_lines(config, arch, model)]) + "\n"


def _lines(config: RunConfig, arch: str, model: Mapping[str, Any]) -> Iterator[str]:
    yield from (_line("data", config.data), _line("task", config.task), _line("arch", arch))
    training = config.training
    groups = [getattr(training, field.name) for field in dataclasses.fields(training)]
    more = [config.bleu] if type(config.bleu) in config.variant.more_options.values() else []
    of_others = {
        name for owner, names in OWN_OPTIONS.items() if owner != training.optimisation.optimizer for name in names
    }
    left_out = {*config.variant.excluded_options, *of_others}
    for group in [config.task_options, config.batches, config.criterion, *more, *groups]:
        values = {field.name: getattr(group, field.name) for field in dataclasses.fields(group)}
        yield from _group(group, {name: value for name, value in values.items() if name not in left_out})
    names = [field.name for field in dataclasses.fields(config.model)]
    yield from _group(config.model, {name: model.get(name) for name in names})


def _group(options: Any, values: Mapping[str, Any]) -> Iterator[str]:
    lines = [_line(name, value) for name, value in values.items() if value not in (None, (), [])]
    if lines:
        yield from ("", f"# {(type(options).__doc__ or '').partition(chr(10))[0]}", *lines)


def _line(name: str, value: Any) -> str:
    if isinstance(value, str) and value != name_text(value):
        return f"# {name} = {name_text(value)} is not UTF-8, which TOML needs: give it as a flag"
    return f"{name} = {toml_value(value)}"


def toml_value(value: Any) -> str:
    """A plain value in TOML: a truth value, a number, text, or a list of these.

    TOML's text is JSON's but for the character DEL, which it wants escaped.
    """
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(toml_value, value))}]"
    if isinstance(value, bool):
        return "true" if value else "false"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
