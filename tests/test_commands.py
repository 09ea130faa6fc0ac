"""The commands as they are installed: help, mistakes on the command line, and what they do without torch."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from seqba.cli import start
from seqba.cli.command import run

ROOT = Path(__file__).resolve().parent.parent


def commands() -> list[str]:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    return re.findall(r'^(seqba-[\w-]+) = "seqba\.cli\.start:\w+"$', text, flags=re.MULTILINE)


def test_the_commands_are_the_installed_ones() -> None:
    installed = {entry.name for entry in entry_points(group="console_scripts") if entry.value.startswith("seqba.")}
    assert installed == set(commands())
    assert len(installed) >= 6


@pytest.mark.parametrize("command", commands())
def test_every_command_is_started_by_its_own_name(command: str) -> None:
    name = command.removeprefix("seqba-").replace("-", "_")
    assert f'{command} = "seqba.cli.start:{name}"\n' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert getattr(start, name).args == (name,)


INTERRUPTED = """
import os, signal, sys
module, command = sys.argv[1:3]
del sys.argv[1:3]
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == module:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder())
from seqba.cli import start
getattr(start, command)()
"""


@pytest.mark.parametrize(
    ("command", "module"),
    [
        *((command, "seqba.cli.command") for command in commands()),
        *((command, "torch") for command in ("seqba-generate", "seqba-measure")),
    ],
)
def test_ctrl_c_while_a_command_is_imported_is_one_line(command: str, module: str) -> None:
    name = command.removeprefix("seqba-").replace("-", "_")
    code = [sys.executable, "-c", INTERRUPTED, module, name, "data-bin", "--path", "model.pt"]
    done = subprocess.run(code, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")


@pytest.mark.parametrize("command", commands())
def test_every_command_answers_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    module = importlib.import_module("seqba.cli." + command.removeprefix("seqba-").replace("-", "_"))
    assert callable(module.entry)
    with pytest.raises(SystemExit) as stopped:
        module.main(["--help"])
    assert stopped.value.code == 0
    assert command in capsys.readouterr().out


@pytest.mark.parametrize("command", commands())
def test_every_command_refuses_an_unknown_flag_in_one_line(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    module = importlib.import_module("seqba.cli." + command.removeprefix("seqba-").replace("-", "_"))
    assert run(module.main, ["--no-such-flag"]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("error: ")
    assert output.err.count("\n") == 1


WITHOUT_TORCH = """
import sys
from importlib import import_module
from seqba.cli.command import run
sys.modules["torch"] = None  # importing it is an error from here on
module, *arguments = sys.argv[1:]
sys.exit(run(import_module(module).main, arguments))
"""


def run_without_torch(command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    module = "seqba.cli." + command.removeprefix("seqba-").replace("-", "_")
    return subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, module, *arguments], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("command", commands())
def test_help_and_a_mistake_on_a_command_line_do_not_wait_for_torch(command: str) -> None:
    shown = run_without_torch(command, "--help")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "--config" in shown.stdout
    refused = run_without_torch(command, "--config", "none.toml")
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1), refused.stderr


@pytest.mark.parametrize(
    ("command", "arguments", "missing"),
    [
        ("seqba-generate", ["data-bin"], "--path"),
        ("seqba-interactive", [], "--path"),
        ("seqba-eval-lm", ["data-bin"], "--path"),
        ("seqba-eval-image", ["pictures"], "--path"),
        ("seqba-measure", ["data-bin"], "--path"),
        ("seqba-advise", ["split.json", "--times", "1:1"], "--batch-examples"),
        ("seqba-average-checkpoints", ["--inputs", "a.pt"], "--output"),
        ("seqba-export", ["a.pt"], "--to"),
    ],
)
def test_options_are_read_before_torch_is(command: str, arguments: list[str], missing: str) -> None:
    refused = run_without_torch(command, *arguments)
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1), refused.stderr
    assert missing in refused.stderr


def test_text_is_prepared_scored_and_drawn_without_torch(tmp_path: Path) -> None:
    (tmp_path / "train.en").write_text("a b c d\ne f g h\n" * 4, encoding="utf-8")
    (tmp_path / "log.jsonl").write_text(
        '{"event": "train", "update": 1, "nll": 2.0}\n{"event": "train", "update": 2, "nll": 1.0}\n', encoding="utf-8"
    )
    text, picture = str(tmp_path / "train.en"), str(tmp_path / "curves.svg")
    for command, arguments in {
        "seqba-preprocess": ["--only-source", "-s", "en", "--trainpref", text[:-3], "--destdir", str(tmp_path / "bin")],
        "seqba-score": ["--sys", text, "--ref", text],
        "seqba-plot": [str(tmp_path / "log.jsonl"), "-o", picture],
    }.items():
        done = run_without_torch(command, *arguments)
        assert done.returncode == 0, done.stderr
