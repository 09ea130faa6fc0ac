"""README and docs name only what there is: commands and their options, scripts, files, headings, code that runs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from pages import (
    FOLDERS,
    PAGES,
    ROOT,
    blocks,
    faults,
    flags_of,
    known_flags,
    load,
    module_of,
    parser_of,
    programs,
    slugs,
    spans,
)
from reversal import write_reversal

from seqba.cli.command import run
from seqba.cli.fairseq_options import INFERENCE
from seqba.cli.train import main as seqba_train

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


@each_page
def test_every_command_exists_with_its_options(page: Path) -> None:
    found = list(programs(page.read_text(encoding="utf-8")))
    assert [fault for each in found for fault in faults(*each)] == []


@each_page
def test_whole_commands_lack_nothing_but_their_files(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for program, arguments, whole in programs(page.read_text(encoding="utf-8")):
        if program.startswith("seqba-") and whole and "…" not in arguments:
            assert run(module_of(program).main, arguments) == 2
            complaint = capsys.readouterr().err
            assert re.search("does not exist|there is no (data-bin|folder)", complaint), (program, arguments)


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
