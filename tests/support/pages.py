"""What README and docs say: commands with their options, flags, paths and headings, and what is wrong with them."""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from seqba.cli.arguments import Parser

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = re.findall(r"^seqba-([\w-]+) = ", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), flags=re.MULTILINE)
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "data_prep" / "README.md"])
FOLDERS = ("seqba", "recipes", "tests", "docs", "data_prep")

OF_OTHERS = {
    *(
        "--nnodes",
        "--nproc-per-node",
        "--max-restarts",
        "--rdzv-backend",
        "--rdzv-endpoint",
        "--rdzv-id",
        "--standalone",
    ),
    *("--shutdown-timeout", "--requeue", "--signal", "--nodes", "--gpus-per-node", "--extra-index-url"),
    *("--aug-repeats", "--config-settings", "--help"),
}
"""Options of torchrun, Slurm, pip and timm."""

OF_TRAINING_ARGUMENTS = {"--output_dir", "--max_steps", "--per_device_train_batch_size"}
"""Options of Hugging Face's TrainingArguments, which an example takes beside its own."""


class Parsed(Exception):
    """Carries a command's parser out of it, before it does anything."""

    def __init__(self, parser: Parser) -> None:
        self.parser = parser


def load(path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def blocks(text: str, language: str = "") -> list[str]:
    """Fenced code of a language, or of none together with indented code."""
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    found = [code for name, code in fenced if name == language]
    if not language:
        rest = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
        found += re.findall(r"(?:^    .*\n)+", rest + "\n", flags=re.MULTILINE)
    return found


def prose(text: str) -> str:
    """A page without its blocks of code and without the tables that are written by a script."""
    text = re.sub(r"<!-- tables: begin.*?tables: end -->", "", text, flags=re.DOTALL)
    text = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"^    .*\n", "", text, flags=re.MULTILINE)


def lines_of_code(text: str) -> Iterator[str]:
    for block in blocks(text):
        yield from re.sub(r"\\\n\s*", " ", block).splitlines()


def spans(text: str) -> list[str]:
    """What stands between backticks, line breaks as spaces."""
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose(text))]


def words_of(command: str) -> list[str]:
    """A command line's words: no comment, no assignment before it, no redirection."""
    words = shlex.split(re.sub(r"\$\(which ([\w-]+)\)", r"\1", command), comments=True)
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words = words[1:]
    if "<" in words:
        words = words[: words.index("<")]
    return words


def programs(text: str) -> Iterator[tuple[str, list[str], bool]]:
    """Every command that a page names: the program, its arguments, and whether it stands in a block of code."""
    for whole, candidates in ((True, lines_of_code(text)), (False, spans(text))):
        for line in candidates:
            if not re.match(r"\s*([A-Z_]+=\S+ )?(seqba-|bash |python |torchrun |sbatch |pytest )", line):
                continue
            words = words_of(line)
            for place, word in enumerate(words):
                if word in (*(f"seqba-{name}" for name in COMMANDS),) or re.search(r"\.(sh|py)$", word):
                    yield word, words[place + 1 :], whole
                    break


def module_of(command: str) -> ModuleType:
    return importlib.import_module("seqba.cli." + command.removeprefix("seqba-").replace("-", "_"))


@functools.cache
def parser_of(command: str) -> Parser:
    module = module_of(command)

    def stop(self: Parser, arguments: Any = None) -> Any:
        raise Parsed(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Parser, "parse", stop)
        with pytest.raises(Parsed) as caught:
            module.main([])
    return caught.value.parser


def flags_of(command: str) -> set[str]:
    return set(parser_of(command)._option_string_actions)


@functools.cache
def recipe_flags(script: Path) -> frozenset[str]:
    """The options that a shell script takes, or those that it sources."""
    text = script.read_text(encoding="utf-8")
    named = re.findall(r"^\s*seqba_options ((?:[\w-]+[ \\\n]+)+)-- ", text, flags=re.MULTILINE)
    flags = {f"--{name}" for names in named for name in names.replace("\\", " ").split()}
    flags |= set(re.findall(r"^\s*(--[\w-]+)\)", text, flags=re.MULTILINE))
    for sourced in re.findall(r'^source .*/([\w.]+)"$', text, flags=re.MULTILINE):
        beside = script.with_name(sourced)
        flags |= recipe_flags(beside if beside.exists() else ROOT / "recipes" / sourced)
    return frozenset(flags)


@functools.cache
def script_flags(script: Path) -> frozenset[str]:
    """The options of a Python script, read from its text: what it and the benchmarks' harness declare."""
    flags = set(OF_TRAINING_ARGUMENTS) if "TrainingArguments" in script.read_text(encoding="utf-8") else set()
    for path in (script, ROOT / "recipes" / "bench" / "harness.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("--"):
                flags.add(node.value)
            elif isinstance(node, ast.keyword) and node.arg:
                flags.add("--" + node.arg.replace("_", "-"))
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                flags.add("--" + node.target.id.replace("_", "-"))
    return frozenset(flags)


def faults(program: str, arguments: list[str], whole: bool) -> list[str]:
    """What is wrong with a command."""
    if program.startswith("seqba-"):
        return faults_of_command(program, arguments, whole)
    if not (ROOT / program).is_file():
        return [f"there is no {program}"]
    if program == "tests/run.sh" or program.startswith("tests/"):
        return []
    if program == "recipes/slurm.sh":
        return faults(arguments[0], arguments[1:], whole) if arguments else []
    own, _, passed = (" ".join(arguments)).partition(" -- ")
    known = recipe_flags(ROOT / program) if program.endswith(".sh") else script_flags(ROOT / program)
    given = [word for word in own.split() if word.startswith("--")]
    handed_on = [word for word in passed.split() if word.startswith("--") and word not in flags_of("seqba-train")]
    return [
        *(f"{program} has no {flag}" for flag in given if flag not in known),
        *(f"seqba-train has no {flag}" for flag in handed_on),
    ]


def faults_of_command(program: str, arguments: list[str], whole: bool) -> list[str]:
    unknown = [word for word in arguments if re.match(r"--?[a-z]", word) and word not in flags_of(program)]
    if unknown or not whole or "--config" in arguments:  # the file isn't there
        return [f"{program} has no {flag}" for flag in unknown]
    parser_of(program).parse([word for word in arguments if word != "…"])  # values and choices as well
    return []


@functools.cache
def slugs(page: Path) -> frozenset[str]:
    """The anchors of a page's headings, as forges make them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", heading.strip().lower()) for heading in headings)
    return frozenset(heading.replace(" ", "-") for heading in plain)


def known_flags() -> set[str]:
    scripts = (script_flags(path) for path in (ROOT / "recipes").rglob("*.py"))
    recipes = (recipe_flags(path) for path in (ROOT / "recipes").glob("*.sh"))
    return set().union(OF_OTHERS, *map(flags_of, (f"seqba-{name}" for name in COMMANDS)), *scripts, *recipes)
