"""Starts the recipes as a user does, through their shell scripts, in a preloaded environment."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from image_recipes import pictures, stubs  # noqa: F401 - fixtures
from preloaded import preloaded

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "recipes" / "evidence"), str(ROOT / "recipes")]
Recipe = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    """`recipe("quickstart.sh", "--out", …, UPDATES="3")` → the finished process, its output captured."""

    def start(script: str, *arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        variables = {**os.environ, "SEQBA_VENV": str(preloaded().folder), "OMP_NUM_THREADS": "1", **environment}
        return subprocess.run(
            ["bash", ROOT / "recipes" / script, *arguments],
            cwd=tmp_path,  # a recipe may not care where it is started
            env=variables,
            capture_output=True,
            text=True,
            check=False,
        )

    return start


@pytest.fixture
def toy_text(tmp_path: Path) -> Path:
    """A folder to write parallel text into."""
    folder = tmp_path / "text"
    folder.mkdir()
    return folder


@pytest.fixture
def write_pairs() -> Callable[[Path, Path, int], None]:
    """`write_pairs(english, german, count)` writes toy sentences, the same at every call."""
    return _write_pairs


def _write_pairs(source: Path, target: Path, count: int) -> None:
    things = [("house", "Das Haus"), ("dog", "Der Hund"), ("cat", "Die Katze"), ("tree", "Der Baum")]
    kinds = [("old", "alt"), ("young", "jung"), ("big", "groß"), ("small", "klein"), ("red", "rot")]
    english, german = [], []
    for i in range(count):
        (thing, ding), (kind, art) = things[i % len(things)], kinds[i % len(kinds)]
        english.append(f"The {thing} of number {i % 17} is {kind}, isn't it?\n")
        german.append(f"{ding} Nummer {i % 17} ist {art}, nicht wahr?\n")
    source.write_text("".join(english), encoding="utf-8")
    target.write_text("".join(german), encoding="utf-8")


@pytest.fixture
def write_words() -> Callable[[Path, int], None]:
    """`write_words(path, count)` writes toy sentences of a small vocabulary, the same at every call."""
    return _write_words


def _write_words(path: Path, count: int) -> None:
    things, kinds = ("house", "dog", "cat", "tree", "<unk>"), ("old", "young", "big", "small", "red", "N", "loud")
    lines = [f" the {things[i % 5]} of the {things[i % 3]} is {kinds[i % 7]} \n" for i in range(count)]
    path.write_text("".join(lines), encoding="utf-8")
