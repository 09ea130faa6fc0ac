"""Makes what `recipes/paper.sh --row` asks for: the recipes, one after the other, then records and the picture."""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from entries import ENTRIES
from entry import Entry
from records import finished_runs, write_record
from run_facts import ROOT

from seqba.cli.command import run as run_command


def parse(words: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """The options, which paper.sh has checked, and what follows a lone --."""
    own = list(words[: words.index("--")] if "--" in words else words)
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--row", required=True)
    for name in ("scale", "from", "data", "seed"):
        parser.add_argument(f"--{name}", default="")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--results", type=Path, required=True)
    return parser.parse_args(own), list(words[len(own) + 1 :])


def recipe_words(command: str, given: argparse.Namespace, passed: Sequence[str]) -> list[str]:
    """The command line of one of an entry's recipes."""
    script, *arguments = shlex.split(command)
    words = ["bash", str(ROOT / "recipes" / script), *arguments, "--out", str(given.out)]
    for name in ("scale", "from", "data", "seed"):
        value = getattr(given, name)
        words += [f"--{name}", value] if value else []
    return [*words, *passed]


def own_words(entry: Entry, given: argparse.Namespace, passed: Sequence[str]) -> list[str]:
    """What somebody types to have the same again, without the folders of this machine."""
    words = ["bash", "recipes/paper.sh", "--row", entry.name]
    for name in ("scale", "seed"):
        value = getattr(given, name)
        words += [f"--{name}", value] if value else []
    return [*words, *(["--", *passed] if passed else [])]


def draw(entry: Entry, records: Sequence[Path], picture: Path) -> int:
    """Draws a figure; returns the status of seqba-plot."""
    command = ["seqba-plot", *map(str, records), *shlex.split(entry.plot), "--title", entry.title, "-o", str(picture)]
    return subprocess.run(command, check=False).returncode


def main(words: Sequence[str]) -> int:
    """Runs the recipes; returns the first status that isn't 0."""
    given, passed = parse(words)
    entry = ENTRIES[given.row]
    for command in entry.commands:
        status = subprocess.run(recipe_words(command, given, passed), check=False).returncode
        if status:
            return status
    records = []
    print(f"\n{entry.name}, {entry.place}, scale {given.scale or 1}; the paper: {dict(entry.paper) or 'a picture'}")
    for run in finished_runs(given.out):
        records.append(write_record(entry, run, given.results, own_words(entry, given, passed), given.scale))
        print(f"{run.folder.name:<18} {run.scores}  {records[-1]}")
    if entry.plot:
        return draw(entry, records, given.results / f"{entry.name}.svg")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main, sys.argv[1:]))
