"""The embedded corpus: right German, one translation each, nothing of the test in the training."""

from __future__ import annotations

from pathlib import Path

import pytest
from phrases import (
    clock,
    english_number,
    english_ordinal,
    english_year,
    generate,
    german_number,
    german_ordinal,
    german_year,
    main,
)


@pytest.mark.parametrize(
    ("number", "english", "german"),
    [
        (0, "zero", "null"),
        (1, "one", "eins"),
        (16, "sixteen", "sechzehn"),
        (21, "twenty-one", "einundzwanzig"),
        (30, "thirty", "dreißig"),
        (66, "sixty-six", "sechsundsechzig"),
        (77, "seventy-seven", "siebenundsiebzig"),
        (100, "one hundred", "einhundert"),
        (101, "one hundred and one", "einhunderteins"),
        (600, "six hundred", "sechshundert"),
        (712, "seven hundred and twelve", "siebenhundertzwölf"),
        (1000, "one thousand", "eintausend"),
        (2007, "two thousand and seven", "zweitausendsieben"),
        (21_345, "twenty-one thousand three hundred and forty-five", "einundzwanzigtausenddreihundertfünfundvierzig"),
        (101_001, "one hundred and one thousand and one", "einhunderteintausendeins"),
    ],
)
def test_numbers(number: int, english: str, german: str) -> None:
    assert (english_number(number), german_number(number)) == (english, german)


@pytest.mark.parametrize(
    ("year", "english", "german"),
    [
        (1900, "nineteen hundred", "neunzehnhundert"),
        (1905, "nineteen oh five", "neunzehnhundertfünf"),
        (1987, "nineteen eighty-seven", "neunzehnhundertsiebenundachtzig"),
        (2000, "two thousand", "zweitausend"),
        (2014, "twenty fourteen", "zweitausendvierzehn"),
    ],
)
def test_years(year: int, english: str, german: str) -> None:
    assert (english_year(year), german_year(year)) == (english, german)


@pytest.mark.parametrize(
    ("number", "english", "german"),
    [
        (1, "first", "erste"),
        (3, "third", "dritte"),
        (7, "seventh", "siebte"),
        (8, "eighth", "achte"),
        (12, "twelfth", "zwölfte"),
        (19, "nineteenth", "neunzehnte"),
        (20, "twentieth", "zwanzigste"),
        (21, "twenty-first", "einundzwanzigste"),
        (30, "thirtieth", "dreißigste"),
    ],
)
def test_ordinals(number: int, english: str, german: str) -> None:
    assert (english_ordinal(number), german_ordinal(number)) == (english, german)


@pytest.mark.parametrize(
    ("hour", "minute", "english", "german"),
    [
        (1, 0, "one o'clock", "ein Uhr"),
        (1, 5, "five past one", "fünf nach eins"),
        (9, 15, "a quarter past nine", "Viertel nach neun"),
        (9, 30, "half past nine", "halb zehn"),
        (12, 30, "half past twelve", "halb eins"),
        (12, 45, "a quarter to one", "Viertel vor eins"),
        (6, 50, "ten to seven", "zehn vor sieben"),
    ],
)
def test_times_of_day(hour: int, minute: int, english: str, german: str) -> None:
    assert clock(hour, minute) == (english, german)


def test_splits_share_no_phrase_and_each_phrase_has_one_translation() -> None:
    splits = generate(seed=1)
    assert {split: len(pairs) for split, pairs in splits.items()} == {"train": 12_000, "valid": 500, "test": 500}
    english = [phrase for pairs in splits.values() for phrase, _ in pairs]
    assert len(set(english)) == len(english)
    words = {word for phrase, _ in splits["train"] for word in phrase.split()}
    unseen = [phrase for phrase, _ in splits["test"] if not words.issuperset(phrase.split())]
    assert len(unseen) <= 5  # the test asks for new phrases, not for words never heard


def test_the_corpus_is_a_function_of_its_seed(tmp_path: Path) -> None:
    small = {"train": 50, "valid": 5, "test": 5}
    assert generate(1, small) == generate(1, small)
    assert generate(1, small) != generate(2, small)


def test_it_is_written_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "text")]) == 0
    assert sorted(path.name for path in (tmp_path / "text").iterdir()) == [
        f"{split}.{language}" for split in ("test", "train", "valid") for language in ("de", "en")
    ]
    first = (tmp_path / "text" / "test.de").read_text(encoding="utf-8").splitlines()
    assert first == [german for _, german in generate(1)["test"]]
    for wrong in ([], ["--help"], [str(tmp_path), "seed"], [str(tmp_path), "1", "2"]):
        assert main(wrong) == 2
        assert "usage: python data_prep/phrases.py DIR [SEED]" in capsys.readouterr().err
    (tmp_path / "file").touch()
    assert main([str(tmp_path / "file" / "sub")]) == 2
    assert "cannot be made" in capsys.readouterr().err
