from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from seqba.cli.command import run
from seqba.cli.plot import main
from seqba.plotting.curves import curve_over_copies
from seqba.plotting.logs import read_run
from seqba.plotting.picture import ARM_COLOURS, THEMES

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Save-dirs of two arms with two seeds each."""
    root, made = tmp_path_factory.mktemp("runs"), []
    for arm, copies in (("baseline", 1), ("ba", 4)):
        for seed in (1, 2):
            folder = root / f"{arm}-{seed}"
            folder.mkdir()
            record = {"arm": arm, "copies": copies, "seed": seed}
            (folder / "run.json").write_text(json.dumps(record), encoding="utf-8")
            lines: list[dict[str, Any]] = []
            for update in (10, 20, 30):
                values = {
                    "update": update,
                    "epoch": 1,
                    "nll": 3 - update / 20 + seed / 9,
                    "processed_tokens": 50 * update,
                }
                lines.append({"event": "train", "seconds_per_update": 0.5, **values})
                lines.append({"event": "valid", "subset": "valid", **values, "ppl": 9.0})
            (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
            made.append(str(folder))
    return made


def texts(path: Path) -> list[str]:
    root = ElementTree.fromstring(path.read_text(encoding="utf-8"))  # noqa: S314 - ours
    return ["".join(node.itertext()).strip() for node in root.iter(f"{SVG}text")]


def lines_of(path: Path) -> list[str]:
    """How each line is drawn, in order; the last two only stand in the legend."""
    root = ElementTree.fromstring(path.read_text(encoding="utf-8"))  # noqa: S314 - ours
    nodes = {node.get("id", ""): node for node in root.iter(f"{SVG}g")}
    names = sorted(name for name in nodes if name.startswith("line-"))
    return [path.get("style", "") for name in names for path in nodes[name].iter(f"{SVG}path")]


def test_arms_have_colours_seeds_a_mean_and_events_a_line(
    runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "curves.svg"
    assert main([*runs, "--x", "processed", "-o", str(output), "--title", "Both arms"]) == 0
    assert capsys.readouterr().out == f"{output}: 4 curves of 4 runs\n"
    written = texts(output)
    for text in ("processed tokens", "negative log-likelihood (nats per token)", "Both arms", "validation", "training"):
        assert text in written
    assert "baseline, 2 seeds" in written
    assert "ba, M = 4, 2 seeds" in written
    styles = lines_of(output)
    assert [ARM_COLOURS["baseline"] in style for style in styles[:4]] == [True, True, False, False]
    assert [ARM_COLOURS["ba"] in style for style in styles[:4]] == [False, False, True, True]
    assert ["stroke-dasharray" in style for style in styles[:4]] == [False, True, False, True]


def test_arms_that_differ_in_more_than_their_names_say_are_told_of(
    runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = []
    for number, (folder, lr) in enumerate(zip(runs, (0.1, 0.1, 0.2, 0.2), strict=True)):
        copied = shutil.copytree(folder, tmp_path / str(number))
        record = json.loads((copied / "run.json").read_text(encoding="utf-8"))
        record["training"] = {"optimisation": {"lr": [lr], "clip_norm": 1.0}}
        (copied / "run.json").write_text(json.dumps(record), encoding="utf-8")
        given.append(str(copied))
    output = ["--output", str(tmp_path / "curves.svg")]
    assert run(main, [*given, *output]) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: the arms differ in --lr (baseline: [0.1], ba, M = 4: [0.2]) too")
    assert run(main, [*runs, *output]) == 0
    assert run(main, [*given, "--by", "run", *output]) == 0
    assert capsys.readouterr().err == ""


def test_a_mean_that_ends_with_the_shortest_run_is_told_of(
    runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shorter = shutil.copytree(runs[1], tmp_path / "shorter")
    lines = (shorter / "log.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (shorter / "log.jsonl").write_text("".join(lines[:4]), encoding="utf-8")
    given = [runs[0], str(shorter), "--output", str(tmp_path / "curves.svg")]
    assert run(main, given) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "warning: baseline: its runs end after 20 to 30 updates, and its curve with the shortest"
    assert run(main, [*given, "--by", "run"]) == 0
    assert capsys.readouterr().err == ""


def test_the_same_logs_give_the_same_bytes(runs: list[str], tmp_path: Path) -> None:
    for name in ("one.svg", "other.svg"):
        assert main([*runs, "--output", str(tmp_path / name), "--by", "run", "--curves", "train"]) == 0
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "other.svg").read_bytes()
    assert "ba-1" in texts(tmp_path / "one.svg")


def test_a_quantity_is_drawn_against_the_number_of_copies(
    runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "copies.svg"
    assert main([*runs, "--x", "copies", "--curves", "train", "-o", str(output)]) == 0
    assert capsys.readouterr().out == f"{output}: 1 curve of 4 runs\n"
    written = texts(output)
    assert {"copies (M)", "1", "4"} <= set(written)
    mean = 3 - 1 + (1 / 9 + 2 / 9) / 2  # over three lines and two seeds, the same for both M
    assert written.count(f"{mean:.3g}") == 2
    curve = curve_over_copies([read_run(path) for path in runs], "train", "nll")
    assert curve is not None
    assert (curve.x, curve.seeds) == ((1.0, 4.0), 2)
    assert curve.spread[0] == pytest.approx(1 / 9 / 2**0.5)


def test_only_arms_that_differ_in_copies_are_drawn_against_them(
    runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    shutil.copytree(runs[0], other)
    (other / "run.json").write_text(json.dumps({"arm": "fixed-samples", "copies": 1, "seed": 1}), encoding="utf-8")
    told = complaint([*runs, str(other), "--x", "copies", "-o", str(tmp_path / "copies.svg")], capsys)
    assert "other is of the arm fixed-samples, which differs in more than M: leave it out" in told


@pytest.mark.parametrize("theme", THEMES)
def test_a_theme_has_its_background(theme: str, runs: list[str], tmp_path: Path) -> None:
    output = tmp_path / "curves.svg"
    more = ["--log-y", "--y-min", "1", "--y-max", "20", "--curves", "valid", "--y", "ppl"]
    assert main([*runs, "-o", str(output), "--theme", theme, *more]) == 0
    drawing = output.read_text(encoding="utf-8")
    assert THEMES[theme]["text"] in drawing
    grounds = [
        other["background"] for other in THEMES.values() if other["background"] in drawing.replace("fill: none", "")
    ]
    assert grounds == ([] if theme == "both" else [THEMES[theme]["background"]])


def test_the_suffix_says_the_kind(runs: list[str], tmp_path: Path) -> None:
    for kind, beginning in ((".png", b"\x89PNG"), (".PDF", b"%PDF")):
        assert main([*runs, "-o", str(tmp_path / f"curves{kind}")]) == 0
        assert (tmp_path / f"curves{kind}").read_bytes().startswith(beginning)


def complaint(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert run(main, arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    return captured.err


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--output", "curves.jpg"], "curves.jpg can't be drawn: end its name in .svg or .png or .pdf"),
        (["--output", "no/such/folder/curves.svg"], "there is no folder no/such/folder"),
        (["--y", "bleu"], "--y bleu is in none of the logs; they have epoch, nll, ppl, processed_tokens"),
        (["--x", "wishes"], "--x wishes is in none of the logs"),
        (["--y", "processed"], "--y processed is in none of the logs"),
        (["--y", "copies"], "--y copies is in none of the logs"),
        (["--x", "copies", "--y", "ppl", "--curves", "train"], "no run has ppl to draw over its copies"),
        (["--subset", "test", "--curves", "valid"], "has no nll to draw over update (--curves valid, --subset test)"),
        (["--y", "ppl", "--curves", "train"], "has no ppl to draw"),
        (["no-such-run"], "no-such-run does not exist"),
        (["--smooth", "0"], "--smooth"),
        ([], "are both baseline with seed 1"),
    ],
)
def test_mistakes_are_one_line(
    more: list[str],
    told: str,
    runs: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert told in complaint([*(runs if more else [runs[0], runs[0]]), *more], capsys)
    assert not list(tmp_path.iterdir())


def test_without_matplotlib_it_says_what_to_install(
    runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    told = complaint([*runs, "-o", str(tmp_path / "curves.svg")], capsys)
    assert told == "error: drawing needs a package that isn't installed, matplotlib: pip install 'seqba[plot]'\n"
