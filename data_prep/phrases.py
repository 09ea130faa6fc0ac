"""A small parallel corpus that needs no download: numbers, prices, dates and times of day, English → German.

    python data_prep/phrases.py DIR [SEED]        # writes train, valid and test, .en and .de

Everything is in words, so that translating takes more than copying: "twenty-one" is "einundzwanzig", "half past nine"
is "halb zehn", and the German verb may stand at the end. Every English phrase has exactly one translation, and no
phrase of valid or test occurs in train, so that a good score means that the rules were learned.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from seqba.data.files import atomic_text
from seqba.errors import UserError

Pair = tuple[str, str]
Item = TypeVar("Item")

SPLITS = {"train": 12_000, "valid": 500, "test": 500}


def _words(text: str) -> list[str]:
    return text.split()


ENGLISH_UNITS = _words(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
)
ENGLISH_TENS = _words("- - twenty thirty forty fifty sixty seventy eighty ninety")
ENGLISH_ORDINALS = {"one": "first", "two": "second", "three": "third", "five": "fifth", "eight": "eighth"} | {
    "nine": "ninth",
    "twelve": "twelfth",
    "twenty": "twentieth",
    "thirty": "thirtieth",
}
GERMAN_UNITS = _words(
    "null eins zwei drei vier fünf sechs sieben acht neun zehn elf zwölf dreizehn vierzehn fünfzehn sechzehn siebzehn "
    "achtzehn neunzehn"
)
GERMAN_TENS = _words("- - zwanzig dreißig vierzig fünfzig sechzig siebzig achtzig neunzig")
GERMAN_ORDINALS = {1: "erste", 3: "dritte", 7: "siebte", 8: "achte"}

MONTHS = tuple(
    zip(
        _words("January February March April May June July August September October November December"),
        _words("Januar Februar März April Mai Juni Juli August September Oktober November Dezember"),
        strict=True,
    )
)
DAYS_IN_MONTH = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
WEEKDAYS = tuple(
    zip(
        _words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday"),
        _words("Montag Dienstag Mittwoch Donnerstag Freitag Samstag Sonntag"),
        strict=True,
    )
)
OWNERS = (
    ("We have", "Wir haben"),
    ("I see", "Ich sehe"),
    ("He counts", "Er zählt"),
    ("She buys", "Sie kauft"),
    ("They need", "Sie brauchen"),
    ("There are", "Es gibt"),
)
PLURALS = (
    ("books", "Bücher"),
    ("apples", "Äpfel"),
    ("houses", "Häuser"),
    ("chairs", "Stühle"),
    ("letters", "Briefe"),
    ("cars", "Autos"),
    ("trees", "Bäume"),
    ("windows", "Fenster"),
    ("bottles", "Flaschen"),
    ("eggs", "Eier"),
    ("keys", "Schlüssel"),
    ("flowers", "Blumen"),
)
GOODS = (
    ("book", "Das Buch"),
    ("coffee", "Der Kaffee"),
    ("lamp", "Die Lampe"),
    ("chair", "Der Stuhl"),
    ("ticket", "Die Karte"),
    ("bread", "Das Brot"),
    ("cup", "Die Tasse"),
    ("table", "Der Tisch"),
)
PEOPLE = (
    ("My sister", "Meine Schwester"),
    ("My brother", "Mein Bruder"),
    ("Her father", "Ihr Vater"),
    ("His mother", "Seine Mutter"),
)
EVENTS = (
    ("The train leaves {}.", "Der Zug fährt {} ab."),
    ("The bus arrives {}.", "Der Bus kommt {} an."),
    ("The shop opens {}.", "Das Geschäft öffnet {}."),
    ("The film begins {}.", "Der Film beginnt {}."),
    ("We eat {}.", "Wir essen {}."),
)
DAYTIMES = (
    ("", ""),
    (" in the morning", " morgens"),
    (" in the afternoon", " nachmittags"),
    (" tonight", " heute Abend"),
)


def english_number(number: int) -> str:
    """0 … 999,999 in British words: 121 → "one hundred and twenty-one"."""
    if number < 20:
        return ENGLISH_UNITS[number]
    if number < 100:
        tens, units = divmod(number, 10)
        return ENGLISH_TENS[tens] + (f"-{ENGLISH_UNITS[units]}" if units else "")
    if number < 1000:
        hundreds, rest = divmod(number, 100)
        return f"{ENGLISH_UNITS[hundreds]} hundred" + (f" and {english_number(rest)}" if rest else "")
    thousands, rest = divmod(number, 1000)
    joint = " and " if rest < 100 else " "
    return f"{english_number(thousands)} thousand" + (joint + english_number(rest) if rest else "")


def german_number(number: int) -> str:
    """0 … 999,999 as one German word: 121 → "einhunderteinundzwanzig"."""
    if number < 20:
        return GERMAN_UNITS[number]
    if number < 100:
        tens, units = divmod(number, 10)
        return (f"{_german_stem(units)}und" if units else "") + GERMAN_TENS[tens]
    if number < 1000:
        hundreds, rest = divmod(number, 100)
        return f"{_german_stem(hundreds)}hundert" + (german_number(rest) if rest else "")
    thousands, rest = divmod(number, 1000)
    return f"{_german_stem(thousands)}tausend" + (german_number(rest) if rest else "")


def _german_stem(number: int) -> str:
    """Within a word "eins" loses its s: "einhundert", "hunderteintausend"."""
    word = german_number(number)
    return word.removesuffix("s") if word.endswith("eins") else word


def english_year(year: int) -> str:
    """1100 … 2099 as it is read: "nineteen eighty-seven", "nineteen oh five", "two thousand and four"."""
    century, rest = divmod(year, 100)
    if 2000 <= year < 2010:
        return english_number(year)
    if rest == 0:
        return f"{english_number(century)} hundred"
    return f"{english_number(century)} {'oh ' if rest < 10 else ''}{english_number(rest)}"


def german_year(year: int) -> str:
    """1100 … 2099 as it is read: "neunzehnhundertsiebenundachtzig", "zweitausendvier"."""
    century, rest = divmod(year, 100)
    if year >= 2000:
        return german_number(year)
    return f"{german_number(century)}hundert" + (german_number(rest) if rest else "")


def english_ordinal(number: int) -> str:
    """1 … 99: "third", "twenty-first"."""
    *head, last = english_number(number).split("-")
    return "-".join([*head, ENGLISH_ORDINALS.get(last, f"{last}th")])


def german_ordinal(number: int) -> str:
    """1 … 99 in the nominative: "dritte", "einundzwanzigste"."""
    return GERMAN_ORDINALS.get(number) or german_number(number) + ("te" if number < 20 else "ste")


def clock(hour: int, minute: int) -> Pair:
    """A time of day on a twelve-hour clock, `minute` a multiple of five: (9, 30) → "half past nine", "halb zehn"."""
    next_hour = hour % 12 + 1
    if minute == 0:
        # "eins" alone, but "ein Uhr".
        return f"{english_number(hour)} o'clock", f"{_german_stem(hour)} Uhr"
    if minute == 30:
        return f"half past {english_number(hour)}", f"halb {german_number(next_hour)}"
    late = minute > 30
    minutes, named = (60 - minute, next_hour) if late else (minute, hour)
    english = "a quarter" if minutes == 15 else english_number(minutes)
    german = "Viertel" if minutes == 15 else german_number(minutes)
    return (
        f"{english} {'to' if late else 'past'} {english_number(named)}",
        f"{german} {'vor' if late else 'nach'} {german_number(named)}",
    )


class _Phrases:
    """Draws one phrase after another."""

    def __init__(self, random: np.random.Generator) -> None:
        self.random = random
        self.kinds: tuple[Callable[[], Pair], ...] = (self.count, self.price, self.birth, self.appointment, self.time)

    def draw(self) -> Pair:
        return self.choice(self.kinds)()

    def choice(self, items: Sequence[Item]) -> Item:
        return items[int(self.random.integers(len(items)))]

    def number(self, low: int, high: int) -> int:
        return int(self.random.integers(low, high + 1))

    def count(self) -> Pair:
        number, (english, german), (things, dinge) = self.number(2, 999), self.choice(OWNERS), self.choice(PLURALS)
        return f"{english} {english_number(number)} {things}.", f"{german} {german_number(number)} {dinge}."

    def price(self) -> Pair:
        (thing, ding), euros, cents = self.choice(GOODS), self.number(2, 199), self.number(2, 99)
        return (
            f"The {thing} costs {english_number(euros)} euros and {english_number(cents)} cents.",
            f"{ding} kostet {german_number(euros)} Euro und {german_number(cents)} Cent.",
        )

    def day(self) -> tuple[int, Pair]:
        month = self.number(0, 11)
        return self.number(1, DAYS_IN_MONTH[month]), MONTHS[month]

    def birth(self) -> Pair:
        (who, wer), (day, (month, monat)), year = self.choice(PEOPLE), self.day(), self.number(1900, 2029)
        return (
            f"{who} was born on the {english_ordinal(day)} of {month} {english_year(year)}.",
            f"{wer} wurde am {german_ordinal(day)}n {monat} {german_year(year)} geboren.",
        )

    def appointment(self) -> Pair:
        (weekday, wochentag), (day, (month, monat)) = self.choice(WEEKDAYS), self.day()
        english, german = clock(self.number(1, 12), 5 * self.number(0, 11))
        return (
            f"See you on {weekday}, the {english_ordinal(day)} of {month}, at {english}.",
            f"Bis {wochentag}, den {german_ordinal(day)}n {monat}, um {german}.",
        )

    def time(self) -> Pair:
        (event, ereignis), (when, wann) = self.choice(EVENTS), self.choice(DAYTIMES)
        english, german = clock(self.number(1, 12), 5 * self.number(0, 11))
        return event.format(f"at {english}{when}"), ereignis.format(f"um {german}{wann}")


def generate(seed: int = 1, sizes: dict[str, int] | None = None) -> dict[str, list[Pair]]:
    """Splits of distinct (English, German) phrases; no phrase is in two splits.

    Args:
        seed: the same seed gives the same corpus.
        sizes: number of phrases of each split; `SPLITS` when None.
    """
    phrases = _Phrases(np.random.Generator(np.random.PCG64(seed)))
    sizes = SPLITS if sizes is None else sizes
    distinct: dict[str, str] = {}
    while len(distinct) < sum(sizes.values()):
        english, german = phrases.draw()
        distinct[english] = german
    pairs = list(distinct.items())
    # What is drawn late is short of the small kinds, which are used up: mix before cutting.
    order = phrases.random.permutation(len(pairs))
    cuts = np.cumsum(list(sizes.values()))[:-1]
    return {split: [pairs[row] for row in rows] for split, rows in zip(sizes, np.split(order, cuts), strict=True)}


def write(folder: Path, seed: int = 1) -> None:
    """Writes `train`, `valid` and `test`, `.en` and `.de`, one phrase a line.

    Raises:
        UserError: if the folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"folder {folder} cannot be made: {error.strerror}; choose another one") from None
    for split, pairs in generate(seed).items():
        for side, language in enumerate(("en", "de")):
            with atomic_text(folder / f"{split}.{language}") as file:
                file.writelines(f"{pair[side]}\n" for pair in pairs)


def main(arguments: Sequence[str]) -> int:
    """Writes the corpus: `DIR [SEED]`."""
    try:
        folder, seed = (*arguments, "1")[:2] if arguments else ("-h", "")
        if folder.startswith("-") or not seed.isdecimal() or len(arguments) > 2:
            raise UserError("usage: python data_prep/phrases.py DIR [SEED]")
        write(Path(folder), int(seed))
    except (UserError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
