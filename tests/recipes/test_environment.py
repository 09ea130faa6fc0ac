from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCED = ("environment.sh", "image.sh", "language_model.sh")
RECIPES = sorted(path.name for path in (ROOT / "recipes").glob("*.sh") if path.name not in SOURCED)


def shell(script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a line of bash with recipes/environment.sh sourced."""
    return subprocess.run(
        ["bash", "-c", f'set -euo pipefail; source "{ROOT}/recipes/environment.sh"; {script}'],
        env={"PATH": "/usr/bin:/bin", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def fake_python(folder: Path, version: str) -> Path:
    """Something that answers the version check as a Python of that version would."""
    folder.mkdir(exist_ok=True)
    status = 0 if tuple(map(int, version.split("."))) >= (3, 10) else 1
    path = folder / "python3"
    path.write_text(f'#!/bin/sh\n[ "$1" = -c ] && exit {status}\necho "Python {version}"\n', encoding="utf-8")
    path.chmod(0o755)
    return path


def test_torch_is_pinned_in_one_place() -> None:
    files = [*ROOT.glob("*.toml"), *ROOT.glob("*.md"), *ROOT.glob("*.txt"), *ROOT.glob("*.cfg")]
    for folder in ("recipes", "tests", "data_prep", ".ci"):
        files += [path for path in (ROOT / folder).rglob("*") if path.is_file() and path.suffix != ".pyc"]
    pins = [path.name for path in files if path.name != "test_environment.py" and b"torch==" in path.read_bytes()]
    assert pins == ["environment.sh"]


def test_an_old_python_is_refused_in_one_line(tmp_path: Path) -> None:
    old = fake_python(tmp_path, "3.9")
    found = shell("seqba_find_python", PYTHON=str(old))
    assert (found.returncode, found.stdout) == (2, "")
    assert found.stderr == f"error: PYTHON={old} is not a Python 3.10 or later\n"


def test_no_python_at_all_is_one_line(tmp_path: Path) -> None:
    found = shell(f'PATH="{tmp_path}"; seqba_find_python')
    assert found.returncode == 2
    assert found.stderr.startswith("error: no Python 3.10 or later on PATH")
    assert found.stderr.count("\n") == 1


def test_the_first_recent_python_is_taken(tmp_path: Path) -> None:
    fake_python(tmp_path / "old", "3.9")
    fake_python(tmp_path / "new", "3.12").rename(tmp_path / "new" / "python3.12")
    assert shell(f'PATH="{tmp_path}/old:{tmp_path}/new"; seqba_find_python').stdout == "python3.12\n"


def test_an_environment_without_seqba_is_refused(tmp_path: Path) -> None:
    found = shell("seqba_environment", SEQBA_VENV=str(tmp_path))
    assert found.returncode == 2
    assert "has no seqba installed" in found.stderr
    assert found.stderr.count("\n") == 1


@pytest.mark.parametrize("name", RECIPES)
def test_help_is_the_head_of_the_script(name: str) -> None:
    finished = subprocess.run(["bash", ROOT / "recipes" / name, "--help"], capture_output=True, text=True, check=False)
    assert finished.returncode == 0
    assert f"bash recipes/{name}" in finished.stdout
    assert "set -euo pipefail" not in finished.stdout
    for promise in ("Needs", "each", "second call"):  # Reaches, or Should reach
        assert promise in finished.stdout


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("arguments", [["--no-such-option"], ["--out"]])
def test_mistakes_are_one_line(name: str, arguments: list[str]) -> None:
    finished = subprocess.run(
        ["bash", ROOT / "recipes" / name, *arguments], capture_output=True, text=True, check=False
    )
    assert (finished.returncode, finished.stdout) == (2, "")
    assert finished.stderr.startswith("error: ")
    assert finished.stderr.count("\n") == 1


def test_options_set_the_variables_of_their_names() -> None:
    words = "--batch-size 8 --out 'a b' --from '' --out c -- --lr 1 --out 'd e'"
    script = "from=x batch_size=1 out=y seed=2 passed=(); seqba_options from batch-size out seed -- "
    found = shell(f'{script} {words}; printf "[%s]" "$from" "$batch_size" "$out" "$seed" "${{passed[@]}}"')
    assert (found.stdout, found.stderr) == ("[][8][c][2][--lr][1][--out][d e]", "")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("--seed", "--seed needs a value"),
        ("--batch_size 3", "unknown argument '--batch_size'"),
        ("--seeds 3", "unknown argument '--seeds'"),
        ("--seed=3", "unknown argument '--seed=3'"),
        ("seed 3", "unknown argument 'seed'"),
        ("'--seed --batch-size' 3", "unknown argument '--seed --batch-size'"),
        ("'*' 3", "unknown argument '*'"),
        ("'' 3", "unknown argument ''"),
        ("--seed 1 -- --lr 1", "unknown argument '--'"),  # nobody would look at what follows
    ],
)
def test_other_options_are_one_line(words: str, complaint: str) -> None:
    found = shell(f"seed=1 batch_size=1; seqba_options batch-size seed -- {words}; echo on")
    assert (found.returncode, found.stdout) == (2, "")
    assert found.stderr.startswith(f"error: {complaint}; see bash ")


@pytest.mark.parametrize("value", ["0", "01", "-1", "1.5", "1e3", "x", "", "12345678901"])
def test_a_count_is_a_whole_number_from_1_on(value: str) -> None:
    found = shell(f"seqba_count --copies 40; seqba_count --copies '{value}'")
    assert found.returncode == 2
    assert found.stderr == f"error: --copies takes a whole number from 1 on, not '{value}'\n"


@pytest.mark.parametrize(
    ("launch", "expected"), [("", "[--lr][1 2]"), ("launcher --nodes 2", "[--nodes][2][{command}][--lr][1 2]")]
)
def test_a_launcher_goes_before_every_seqba_train(tmp_path: Path, launch: str, expected: str) -> None:
    for name in ("launcher", "seqba-train"):
        (tmp_path / name).write_text('#!/bin/sh\nprintf "[%s]" "$@"\n', encoding="utf-8")
        (tmp_path / name).chmod(0o755)
    found = shell(f'PATH="{tmp_path}:$PATH"; seqba-train --lr "1 2"', SEQBA_LAUNCH=launch)
    assert (found.stdout, found.stderr) == (expected.format(command=tmp_path / "seqba-train"), "")
