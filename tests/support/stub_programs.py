"""Environments for recipes whose programs only note how they were called."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path

NOTE = f'exec {sys.executable} "${{0%/*}}/stub.py" "$0" "$@"'
"""The shell line of a program that only notes its call; a call of `python SCRIPT` is noted as one of the script."""

STUB = """\
import json, sys
from pathlib import Path

home, name, arguments = Path(sys.argv[1]).parent, Path(sys.argv[1]).name, sys.argv[2:]
if name == "python":
    name = Path(arguments.pop(0)).name
with open(home / "calls.jsonl", "a") as calls:
    calls.write(json.dumps([name, *arguments]) + chr(10))
if name == "seqba-train":
    Path(arguments[arguments.index("--save-dir") + 1]).mkdir(exist_ok=True, parents=True)
"""


def write_programs(environment: Path, lines: Mapping[str, str], answer: str) -> Path:
    """Writes shell programs into the `bin` of an environment, and returns the environment.

    Args:
        environment: its folder, which isn't there yet.
        lines: name of a program → its shell line, `NOTE` for one that only notes its call.
        answer: Python for what such programs print, of `name` and `arguments`.
    """
    programs = environment / "bin"
    programs.mkdir(parents=True)
    (programs / "stub.py").write_text(STUB + answer, encoding="utf-8")
    for name, line in lines.items():
        (programs / name).write_text(f"#!/bin/sh\n{line}\n", encoding="utf-8")
        (programs / name).chmod(0o755)
    return environment


def noted_calls(environment: Path, name: str) -> list[list[str]]:
    """The arguments of every call of a program, in order."""
    lines = map(json.loads, (environment / "bin" / "calls.jsonl").read_text(encoding="utf-8").splitlines())
    return [arguments for called, *arguments in lines if called == name]
