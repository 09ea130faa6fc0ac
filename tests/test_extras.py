"""Packages beyond torch and numpy: the library does without them, and a command that needs one says how to get it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from seqba.extras import EXTRA_OF

HIDING = """
import sys
for name in {hidden!r}:
    sys.modules[name] = None
"""


def python(code: str, *hidden: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", HIDING.format(hidden=hidden) + code]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def run(command: str, arguments: list[str], *hidden: str) -> subprocess.CompletedProcess[str]:
    code = (
        f"from seqba.cli.command import run\nfrom seqba.cli.{command} import main\nsys.exit(run(main, {arguments!r}))"
    )
    return python(code, *hidden)


def test_the_library_needs_torch_and_numpy_alone() -> None:
    finished = python("import seqba\nassert seqba.merged_gradient", *EXTRA_OF)
    assert (finished.returncode, finished.stderr) == (0, "")


@pytest.mark.parametrize(
    "command",
    [
        "train",
        "generate",
        "interactive",
        "eval_lm",
        "eval_image",
        "score",
        "preprocess",
        "average_checkpoints",
        "plot",
        "measure",
        "advise",
    ],
)
def test_every_command_explains_itself_without_any_of_them(command: str) -> None:
    finished = run(command, ["--no-such-flag"], *EXTRA_OF)
    assert finished.returncode == 2
    assert finished.stderr.startswith("error: ")
    assert finished.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("command", "arguments", "hidden", "extra"),
    [
        ("score", ["--sys", "text.en", "--ref", "text.en"], "sacrebleu", "text"),
        ("preprocess", ["-s", "en", "-t", "de", "--trainpref", "text", "--destdir", "out"], "tqdm", "text"),
        (
            "preprocess",
            ["-s", "en", "-t", "de", "--sentencepiece", "9", "--trainpref", "text", "--destdir", "out"],
            "sentencepiece",
            "text",
        ),
        (
            "preprocess",
            ["--only-source", "--source-column", "a", "--trainpref", "text.parquet", "--destdir", "out"],
            "pyarrow",
            "parquet",
        ),
        (
            "preprocess",
            ["-s", "en", "-t", "de", "--tokenizer-json", "text.en", "--trainpref", "text", "--destdir", "out"],
            "tokenizers",
            "tokenizers",
        ),
    ],
)
def test_a_missing_package_is_one_line_with_the_extra_that_brings_it(
    command: str, arguments: list[str], hidden: str, extra: str, tmp_path: Path
) -> None:
    for language in ("en", "de"):
        (tmp_path / f"text.{language}").write_text("a b c d\n" * 4, encoding="utf-8")
    given = [
        argument.replace("text", str(tmp_path / "text")).replace("out", str(tmp_path / "out")) for argument in arguments
    ]
    finished = run(command, given, hidden, f"{hidden}.metrics", f"{hidden}.metrics.bleu")
    assert finished.returncode == 2, finished.stderr
    line = finished.stderr.splitlines()[-1]
    assert line.startswith("error: ")
    assert f"pip install 'seqba[{extra}]'" in line
    assert "Traceback" not in finished.stderr


@pytest.mark.parametrize(
    ("module", "hidden"), [("transformers", "transformers"), ("transformers", "accelerate"), ("lightning", "lightning")]
)
def test_an_integration_without_its_library_is_one_line_too(module: str, hidden: str) -> None:
    finished = python(f"import seqba.integrations.{module}", hidden)
    assert finished.stderr.splitlines()[-1] == (
        f"seqba.errors.UserError: seqba.integrations.{module} needs a package that isn't installed, {hidden}: "
        f"pip install 'seqba[{module}]'"
    )
