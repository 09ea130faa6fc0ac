"""README and docs name only what there is: commands and their options, scripts, files, headings, code that runs."""

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
import torch
from reversal import write_reversal

from seqba.cli.arguments import Parser
from seqba.cli.fairseq_options import INFERENCE
from seqba.cli.train import main as seqba_train

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

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


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
    found = re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
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
    """A command line's words: no comment, no ellipsis, no assignment before it, no redirection."""
    words = shlex.split(re.sub(r"\$\(which ([\w-]+)\)", r"\1", command), comments=True)
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words = words[1:]
    if "<" in words:
        words = words[: words.index("<")]
    return [word for word in words if word != "…"]


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


@functools.cache
def parser_of(command: str) -> Parser:
    module = importlib.import_module("seqba.cli." + command.removeprefix("seqba-").replace("-", "_"))

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
    parser_of(program).parse(arguments)  # values and choices as well
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


@each_page
def test_every_command_exists_with_its_options(page: Path) -> None:
    found = list(programs(page.read_text(encoding="utf-8")))
    assert [fault for each in found for fault in faults(*each)] == []


def test_the_pages_name_commands_of_every_kind() -> None:
    named = {program for page in PAGES for program, _, _ in programs(page.read_text(encoding="utf-8"))}
    assert {"seqba-train", "seqba-generate", "recipes/quickstart.sh", "recipes/bench/scaling.py"} <= named
    assert len(named) >= 20


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("seqba-train data-bin --copies 4 --no-such 1", "seqba-train has no --no-such"),
        ("torchrun --nproc-per-node 4 $(which seqba-train) data-bin --copys 4 …", "seqba-train has no --copys"),
        ("bash recipes/ptb.sh --arm ba --size small --tta 10", "recipes/ptb.sh has no --tta"),
        ("bash recipes/ptb.sh --arm ba -- --no-such 1", "seqba-train has no --no-such"),
        ("sbatch --nodes 4 recipes/slurm.sh recipes/wmt16_en_de.sh --arms ba", "recipes/wmt16_en_de.sh has no --arms"),
        ("bash recipes/no_such.sh", "there is no recipes/no_such.sh"),
        ("python recipes/bench/decoding.py --sentence 200", "recipes/bench/decoding.py has no --sentence"),
    ],
)
def test_a_stale_command_is_seen(line: str, fault: str) -> None:
    (found,) = programs(f"    {line}\n")
    assert faults(*found) == [fault]


@each_page
def test_options_in_running_text_exist(page: Path) -> None:
    flags = {flag for span in spans(page.read_text(encoding="utf-8")) for flag in re.findall(r"^--[a-z][\w-]*", span)}
    fairseq = set(INFERENCE) | set(parser_of("seqba-train").unsupported)
    if page.name == "fairseq.md":
        flags -= fairseq
    assert flags - known_flags() == set()


@each_page
def test_every_link_and_path_leads_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)):
        if re.match(r"https?://", target):
            continue
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        if not file.exists() or (anchor and anchor not in slugs(file)):
            broken.append(target)
    for span in spans(text):
        if re.fullmatch(rf"({'|'.join(FOLDERS)})/[\w./-]*", span) and not (ROOT / span).exists():
            broken.append(span)
    assert broken == []


@each_page
def test_python_code_compiles(page: Path) -> None:
    for block in blocks(page.read_text(encoding="utf-8"), "python"):
        compile(block, str(page), "exec")


def test_the_first_pages_loop_trains_a_model() -> None:
    (code,) = blocks((ROOT / "README.md").read_text(encoding="utf-8"), "python")
    torch.manual_seed(1)
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Dropout(0.1), torch.nn.Linear(16, 4))
    batch = {"x": torch.randn(16, 8), "y": torch.randint(4, (16,))}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)

    def loss() -> float:
        with torch.no_grad():
            return float(torch.nn.functional.cross_entropy(model.eval()(batch["x"]), batch["y"]))

    before = loss()
    model.train()
    exec(code, {"model": model, "loader": [batch] * 20, "optimizer": optimizer})  # noqa: S102
    assert loss() < before - 0.3


def test_the_programs_of_the_page_on_own_loops_run(capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(1)
    names: dict[str, Any] = {}
    for code in blocks((ROOT / "docs" / "own-loop.md").read_text(encoding="utf-8"), "python"):
        exec(code, names)  # noqa: S102
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["0", "1", "2"]
    assert lines[3] == "seqba.check with 2 copies: fine in every plan"


def test_the_program_of_the_page_on_statistics_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = blocks((ROOT / "docs" / "statistics.md").read_text(encoding="utf-8"), "python")
    exec(code, {})  # noqa: S102
    ratio, advice = capsys.readouterr().out.splitlines()
    assert re.match(r"S_w/S_b = \d\.\d+ ± 0\.\d+$", ratio)
    assert "times the examples" in advice


def test_the_program_of_the_page_on_forks_runs(capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(1)
    (code,) = blocks((ROOT / "docs" / "forks.md").read_text(encoding="utf-8"), "python")
    exec(code, {})  # noqa: S102
    assert 1 < float(capsys.readouterr().out) < 2


def test_the_file_of_the_page_on_config_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (text,) = blocks((ROOT / "docs" / "config.md").read_text(encoding="utf-8"), "toml")
    monkeypatch.chdir(tmp_path)
    Path("run.toml").write_text(text, encoding="utf-8")
    write_reversal(Path("data-bin"))
    small = ["--arch", "transformer_tiny", "--max-update", "2", "--cpu", "--log-format", "none"]
    assert seqba_train(["--config", "run.toml", *small]) == 0
    assert sorted(path.name for path in Path("checkpoints/base").iterdir()) == [
        *("checkpoint_best.pt", "checkpoint_last.pt", "config.toml", "log.jsonl", "run.json")
    ]
    assert "copies = 4\n" in Path("checkpoints/base/config.toml").read_text(encoding="utf-8")


def test_the_first_page_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def test_the_glossary_is_short() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").split("## Glossary\n", 1)[1]
    rows = re.findall(r"^\| (?!word|---)[^|]+ \|", text, flags=re.MULTILINE)
    assert 10 <= len(rows) <= 15


def test_every_page_can_be_reached_from_the_first() -> None:
    linked = re.findall(r"\]\((docs/[\w-]+\.md)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert {str(path.relative_to(ROOT)) for path in ROOT.glob("docs/*.md")} == set(linked)


def test_the_picture_of_the_grid_is_the_one_that_its_script_draws() -> None:
    drawing = load("recipes/bench/first_page.py")
    assert (ROOT / "docs/img/grid.svg").read_text(encoding="utf-8") == drawing.draw_grid()


def test_the_tables_of_fairseqs_options_are_those_of_the_command_lines() -> None:
    page = load("docs/fairseq_tables.py").page()
    assert (ROOT / "docs/fairseq.md").read_text(encoding="utf-8") == page, "run python docs/fairseq_tables.py"


@pytest.mark.parametrize("command", ["seqba-generate", "seqba-interactive", "seqba-eval-lm"])
def test_commands_that_read_checkpoints_refuse_what_the_page_says(command: str) -> None:
    assert set(INFERENCE) <= set(parser_of(command).unsupported) | flags_of(command)


def test_the_version_is_the_same_everywhere() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (version,) = re.findall(r'^version = "(.+)"$', project, flags=re.MULTILINE)
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"## [{version}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_workflow_runs_every_python_of_the_project_and_its_oldest_torch() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    workflow = (ROOT / ".github/workflows/tests.yml").read_text(encoding="utf-8")
    pythons = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', project)
    assert re.findall(r'python: "(.+?)"', workflow) == pythons
    (oldest_python,) = re.findall(r'^requires-python = ">=(.+)"$', project, flags=re.MULTILINE)
    (oldest_torch,) = re.findall(r'^    "torch>=([\d.]+),', project, flags=re.MULTILINE)
    torch_of_python = dict(re.findall(r'python: "(.+?)", torch: "torch={2}(.+?)"', workflow))
    assert torch_of_python[oldest_python] == f"{oldest_torch}.0"
