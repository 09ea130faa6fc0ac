from __future__ import annotations

from pathlib import Path

import pytest

from seqba.data.moses import BytePairs, Moses
from seqba.errors import UserError


@pytest.fixture
def codes(tmp_path: Path) -> Path:
    path = tmp_path / "codes"
    path.write_text("#version: 0.2\nl o\nlo w</w>\nlo w\n", encoding="utf-8")
    return path


def test_tokens_are_those_of_moses_and_come_back() -> None:
    moses, line = Moses("en"), 'He isn\'t "well-known", Mr. Low.'
    assert moses.tokenize(line) == "He isn &apos;t &quot; well @-@ known &quot; , Mr. Low ."
    assert moses.detokenize(moses.tokenize(line)) == line
    plain = Moses("en", dash_splits=False, escape=False)
    assert plain.tokenize(line) == 'He isn \'t " well-known " , Mr. Low .'


def test_rules_are_those_of_the_language() -> None:
    assert Moses("fr").detokenize("l&apos; an") == "l'an"
    assert Moses("en").detokenize("l&apos; an") != "l'an"


def test_byte_pairs_are_merged_as_learned_and_joined_again(codes: Path) -> None:
    pairs = BytePairs(codes)
    assert pairs.encode("low lower") == ["low", "low@@", "e@@", "r"]
    assert pairs.decode(["low", "low@@", "e@@", "r"]) == "low lower"
    assert BytePairs(codes, "~").encode("lower") == ["low~", "e~", "r"]
    assert BytePairs(codes, "~").decode(["low~", "e~", "r"]) == "lower"


def test_a_file_of_something_else_is_told(tmp_path: Path) -> None:
    path = tmp_path / "codes"
    path.write_text("e n 12\n", encoding="utf-8")
    with pytest.raises(UserError, match="line 1 is 'e n 12', not two subwords"):
        BytePairs(path)
