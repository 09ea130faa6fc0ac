from __future__ import annotations

import math
from pathlib import Path

import pytest

LINES = {"train": 60, "valid": 12, "test": 12}
TINY = ["--decoder-layers", "2", "--decoder-embed-dim", "8", "--decoder-hidden-size", "12"]


@pytest.mark.slow
def test_from_words_to_perplexities(recipe, toy_text: Path, write_words, tmp_path: Path) -> None:
    for split, count in LINES.items():
        path = toy_text / f"wiki.{split}.tokens"
        write_words(path, count)
        path.write_text(" \n = A heading = \n \n" + path.read_text(encoding="utf-8"), encoding="utf-8")
    arguments = ["--from", toy_text, "--arm", "all", "--copies", "2", "--updates", "4", "--batch-size", "2"]
    finished = recipe("wikitext2.sh", *arguments, "--out", tmp_path / "out", "--", *TINY)
    assert finished.returncode == 0, finished.stderr
    table = [line.split() for line in finished.stdout.splitlines()[-4:]]
    assert [row[0] for row in table] == ["perplexity", "baseline", "fixed-samples", "ba"]
    assert all(1 < float(figure) < math.inf for row in table[1:] for figure in row[1:])


def test_text_that_is_not_there_is_one_line(recipe, tmp_path: Path) -> None:
    finished = recipe("wikitext2.sh", "--from", tmp_path, "--out", tmp_path / "out")
    assert finished.returncode == 2
    assert "neither wiki.train.tokens nor wiki.train.tokens.gz nor train.txt" in finished.stderr.splitlines()[-1]
