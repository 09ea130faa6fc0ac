"""The house's rules, read from the code itself: who imports whom, and what every public name owes its reader."""

from __future__ import annotations

import ast
import io
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "seqba"
SOURCES = sorted(PACKAGE.rglob("*.py"))

# What each part may import from seqba, beside itself: random, rows, modules, group, runtime ← noise ← keying ← core;
# noise ← nn ← models; core, data ← tasks; everything ← training ← cli.
LEAVES = {"errors", "options", "extras"}
MAY_IMPORT = {
    "errors": set(),
    "options": {"errors"},
    "extras": {"errors"},
    "values": set(),
    "random": set(),
    "rows": {"values"},
    "modules": set(),
    "group": set(),
    "noise": {"group", "random", "rows", "modules"},
    "keying": {"random", "modules", "noise"},
    "runtime": set(),
    "core": {"group", "values", "rows", "modules", "noise", "keying", "runtime"},
    "distributed": {"group", "modules", "runtime", *LEAVES},
    "checkpoints": {"core", "distributed", "models", "data", "tasks", *LEAVES},
    "nn": {"noise", "random", *LEAVES},
    "checking": {"core", "values", "rows", "modules", "keying", "nn"},
    "models": {"noise", "keying", "nn", *LEAVES},
    "data": LEAVES,
    "tasks": {"core", "noise", "nn", "data", *LEAVES},
    "decoding": {"nn", "data", *LEAVES},
    "statistics": {"core", "values", "noise", *LEAVES},
    "plotting": {"data", *LEAVES},
    "evaluation": {"noise", "nn", "models", "data", *LEAVES},  # noise: the views of test-time augmentation are keyed
    "training": {
        "core",
        "rows",
        "modules",
        "noise",
        "distributed",
        "runtime",
        "checkpoints",
        "nn",
        "models",
        "data",
        "tasks",
        "decoding",
        "evaluation",
        "statistics",
        *LEAVES,
    },
    "cli": {
        "core",
        "distributed",
        "runtime",
        "checkpoints",
        "nn",
        "models",
        "data",
        "tasks",
        "decoding",
        "evaluation",
        "plotting",
        "statistics",
        "training",
        *LEAVES,
    },
    "integrations": {"core", "values", "rows", "modules", *LEAVES},
    # The package's own face: what `import seqba` gives.
    "__init__": {"checking", "core", "distributed", "errors", "nn"},
}


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported_modules(source: str) -> Iterator[tuple[str, int]]:
    """Every module that a source file imports, wherever in it the import stands, with its line."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative import; write the full name"
            # `from seqba import nn` names a part too.
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


TORCH_ALONE = {"core", "group", "values", "random", "rows", "modules", "noise", "keying", "runtime"}
"""The method and the rooms that it stands on: they go with torch and the standard library into anybody's loop."""

MORE_THAN_TORCH = {"random/philox_kernels.py": ("triton",)}
"""Modules of theirs that are imported on a GPU alone, and what they need beside torch."""


def forbidden_imports(part: str, source: str, name: str = "") -> list[str]:
    """The imports that this part of the package may not have, as `line N: reason`."""
    found = []
    for module, line in imported_modules(source):
        top, *rest = module.split(".")
        if top == "seqba":
            if rest[0] != part and rest[0] not in MAY_IMPORT[part] and rest[0] != "__version__":
                found.append(f"line {line}: {part} may not import {module}")
        elif part in TORCH_ALONE and top not in {"torch", *MORE_THAN_TORCH.get(name, ())} | sys.stdlib_module_names:
            found.append(f"line {line}: {part} imports torch and the standard library alone, not {top}")
        elif top == "argparse" and part != "cli":
            found.append(f"line {line}: only cli knows argparse")
    return found


CORE_LINES = 650


def code_lines(path: Path) -> int:
    """Lines of a file with code on them: neither blank, nor a comment's or a docstring's."""
    source = path.read_text(encoding="utf-8")
    places = {
        line
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    layout = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    written = {
        line
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type not in layout
        for line in range(token.start[0], token.end[0] + 1)
    }
    return len(written - places)


def public_definitions(path: Path) -> Iterator[tuple[str, ast.AST]]:
    """The module, its public classes and functions, and their public methods."""

    def walk(node: ast.AST, prefix: str) -> Iterator[tuple[str, ast.AST]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) and not child.name.startswith(
                "_"
            ):
                yield f"{prefix}{child.name}", child
                if isinstance(child, ast.ClassDef):
                    yield from walk(child, f"{prefix}{child.name}.")

    tree = ast.parse(path.read_text(encoding="utf-8"))
    yield "", tree
    yield from walk(tree, "")


def test_the_core_is_the_method_alone() -> None:
    """What isn't goes to the room where it belongs; a line that counts is one that a reader of the method reads."""
    assert sum(map(code_lines, sorted((PACKAGE / "core").glob("*.py")))) <= CORE_LINES


def test_code_is_told_from_comments_and_docstrings(tmp_path: Path) -> None:
    file = tmp_path / "file.py"
    file.write_text(
        '"""What it is."""\n\nX = 1  # of it\n# why\n"""Of X,\nof which more."""\nY = (\n    2\n)\n', "utf-8"
    )
    assert code_lines(file) == 4


def test_every_part_has_its_place_in_the_house() -> None:
    assert {part_of(path) for path in SOURCES} <= set(MAY_IMPORT)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_follow_the_rules(path: Path) -> None:
    name = path.relative_to(PACKAGE).as_posix()
    assert forbidden_imports(part_of(path), path.read_text(encoding="utf-8"), name) == []


@pytest.mark.parametrize(
    ("part", "line", "reason"),
    [
        ("core", "import numpy", "standard library alone"),
        ("random", "import triton", "standard library alone"),
        ("random", "from seqba.core import Noise", "random may not import"),
        ("core", "from seqba import nn", "core may not import"),
        ("core", "from seqba.errors import UserError", "core may not import"),
        ("models", "from seqba.tasks.translation import Translation", "models may not import"),
        ("training", "import argparse", "only cli"),
        ("decoding", "def f():\n    from seqba.training import trainer", "decoding may not import"),
    ],
)
def test_the_rules_catch_a_stray_import(part: str, line: str, reason: str) -> None:
    (complaint,) = forbidden_imports(part, line)
    assert reason in complaint


def imports_of(module: str, seen: set[str]) -> set[str]:
    """All modules of seqba that importing this one brings with it, by what stands in the files."""
    path = PACKAGE.joinpath(*module.split(".")[1:])
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    if module not in seen and file.exists():
        seen.add(module)
        for name, _ in imported_modules(file.read_text(encoding="utf-8")):
            for parent in (name, name.rpartition(".")[0]):
                if parent.startswith("seqba"):
                    imports_of(parent, seen)
    return seen


@pytest.mark.parametrize(
    "command",
    ["generate", "interactive", "eval_lm", "eval_image", "average_checkpoints", "score", "preprocess", "measure"],
)
def test_commands_but_training_know_nothing_of_it(command: str) -> None:
    found = imports_of(f"seqba.cli.{command}", set())
    assert "seqba.cli.arguments" in found
    assert sorted(name for name in found if name.startswith("seqba.training")) == []


def files_imported(path: Path) -> set[Path]:
    """Files of seqba that a file imports, wherever in it; not those that it names the types of alone."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in list(ast.walk(tree)):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            node.body = [ast.Pass()]
    found = set()
    for name, _ in imported_modules(ast.unparse(tree)):
        inside = PACKAGE.parent.joinpath(*name.split("."))
        # A name of a module, or one in a module or package.
        for file in (inside.with_suffix(".py"), inside.parent.with_suffix(".py"), inside.parent / "__init__.py"):
            if file.exists() and file != path:
                found.add(file)
                break
    return found


def circles(imports: dict[str, set[str]]) -> list[list[str]]:
    """Groups of files that import one another, at once or through others."""
    reached = {name: set(others) for name, others in imports.items()}
    for middle in imports:
        for others in reached.values():
            if middle in others:
                others |= reached[middle]
    groups = {tuple(sorted(one for one in reached[name] if name in reached[one])) for name in reached}
    return sorted(list(group) for group in groups if group)


def test_files_import_one_another_in_no_circle() -> None:
    """Whoever reads a file can read what it imports first, and any of them can be imported first."""
    imports = {path.relative_to(PACKAGE).as_posix(): files_imported(path) for path in SOURCES}
    named = {
        name: {file.relative_to(PACKAGE).as_posix() for file in files if file.is_relative_to(PACKAGE)}
        for name, files in imports.items()
    }
    assert len(named["cli/generate.py"]) > 5
    assert "cli/jobs/generate.py" in named["cli/generate.py"]
    assert circles(named) == []


def test_a_circle_is_found() -> None:
    imports = {"a": {"b"}, "b": {"c", "d"}, "c": {"a"}, "d": set(), "e": {"f"}, "f": {"e", "a"}}
    assert circles(imports) == [["a", "b", "c"], ["e", "f"]]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_public_name_has_a_docstring(path: Path) -> None:
    missing = [name or "the module" for name, node in public_definitions(path) if not ast.get_docstring(node)]
    assert missing == []
