"""The public face: every name that users may import, with its signature; a change of it is a change of this list."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import seqba
import seqba.core
import seqba.distributed
import seqba.nn
import seqba.statistics

SNAPSHOT = Path(__file__).with_name("public_names.txt")
PACKAGES = (seqba, seqba.core, seqba.distributed, seqba.nn, seqba.statistics)


def described(package: ModuleType) -> list[str]:
    """A line for each public name of a package: its signature, where it can be called."""
    lines = []
    for name in sorted(package.__all__):
        value = getattr(package, name)
        lines.append(f"{package.__name__}.{name}{_signature(value)}")
    return lines


def _signature(value: object) -> str:
    is_bare = isinstance(value, type) and (issubclass(value, Exception) or getattr(value, "_is_protocol", False))
    return str(inspect.signature(value)) if callable(value) and not is_bare else ""


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_the_public_names_and_signatures_are_those_of_the_list(package: ModuleType) -> None:
    listed = [line for line in SNAPSHOT.read_text(encoding="utf-8").splitlines() if line]
    prefix = f"{package.__name__}."
    own = [line for line in listed if line.startswith(prefix) and "." not in _name(line, prefix)]
    assert described(package) == own


@pytest.mark.parametrize("name", ["checking", "core", "distributed", "errors", "nn"])
def test_import_seqba_suffices_for_its_packages(name: str) -> None:
    program = f"""
import seqba, sys
assert {name!r} in dir(seqba) and "torch" not in sys.modules
assert seqba.{name} is sys.modules["seqba.{name}"]
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def _name(line: str, prefix: str) -> str:
    return line.removeprefix(prefix).partition("(")[0]
