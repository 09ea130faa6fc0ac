from __future__ import annotations

from dataclasses import make_dataclass

import pytest

from seqba.cli.arguments import Parser, read_options
from seqba.errors import UserError
from seqba.options import option, options


@options
class Toys:
    """One field of each kind."""

    count: int = option(3, "how many", minimum=1)
    size: float | None = option(None, "how large, in 100% of a hand", above=0)
    betas: tuple[float, ...] = option((0.9, 0.98), "two numbers", minimum=0, below=1)
    shards: tuple[int, ...] = option((1,), "whole numbers", minimum=1)
    parts: tuple[int, ...] = option((), "nothing of it")
    loud: bool = option(False, "makes a noise")
    colour: str = option("red", "which colour", choices=("red", "blue"))
    name: str | None = option(None, "its name", aliases=("called", "-n"))
    joint: str | None = option(None, "what joins it", bare="glue")


def parse(*arguments: str) -> Toys:
    parser = Parser("toys", "Toys.", unsupported={"--wings": "toys don't fly"})
    parser.add_argument("data", nargs="?")
    parser.add_options(Toys, "toys")
    return read_options(parser.parse(list(arguments)), Toys)


def test_defaults_are_the_fields() -> None:
    assert parse() == Toys()


def test_every_kind_of_flag() -> None:
    given = parse("--count", "5", "--size", "2.5", "--loud", "--colour", "blue", "-n", "Bo", "--joint", "nail")
    assert given == Toys(count=5, size=2.5, loud=True, colour="blue", name="Bo", joint="nail")
    assert parse("--called", "Bo", "--joint") == Toys(name="Bo", joint="glue")


@pytest.mark.parametrize("text", ["0.5,0.25", "(0.5, 0.25)", "[0.5,0.25]"])
def test_lists_as_fairseq_writes_them(text: str) -> None:
    assert parse("--betas", text).betas == (0.5, 0.25)


@pytest.mark.parametrize(("text", "expected"), [("4", (4,)), ("1,2", (1, 2)), ("[3]", (3,))])
def test_lists_of_whole_numbers(text: str, expected: tuple[int, ...]) -> None:
    assert parse("--shards", text).shards == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--count", "0"], "--count is 0; it must be at least 1"),
        (["--count", "1.5"], "invalid int value: '1.5'"),
        (["--size", "0"], "--size is 0; it must be greater than 0"),
        (["--size", "nan"], "--size is nan; it must be a finite number"),
        (["--betas", "0.5,1"], "--betas is 1; it must be less than 1"),
        (["--count", "-3000000"], "--count is -3000000; it must be at least 1"),
        (["--size", "-1e-3"], "--size is -1e-3; it must be greater than 0"),
        (["--size", "0.0"], "--size is 0.0; it must be greater than 0"),
        (["--size", "1e999"], "--size is 1e999; it must be a finite number"),
        (["--betas", "0.5,1.25000001"], "--betas is 1.25000001; it must be less than 1"),
        (["--colour", "gr\xfcn\udcfc"], "invalid choice: 'gr\xfcn\udcfc'"),
        (["--cout\udcfc"], "unknown argument '--cout\udcfc'"),
        (["--betas", "x"], "'x' is not a list of numbers"),
        (["--betas", "()"], "is not a list of numbers"),
        (["--betas", "__import__('os')"], "is not a list of numbers"),
        (["--shards", "1.5"], "is not a list of whole numbers"),
        (["--shards", "2,0"], "--shards is 0; it must be at least 1"),
        (["--colour", "green"], "invalid choice: 'green'"),
        (["--cout", "5"], "unknown argument '--cout'; did you mean --count?"),
        (["--coun", "5"], "unknown argument '--coun'"),
        (["--wings", "2"], "--wings is not an option here: toys don't fly"),
        (["--wings=2"], "--wings is not an option here"),
        (["a", "b"], "unknown argument 'b'"),
    ],
)
def test_mistakes_are_told(arguments: list[str], message: str) -> None:
    with pytest.raises(UserError) as caught:
        parse(*arguments)
    assert message in str(caught.value)


@options
class Tools:
    """Shares two names with `Toys`, one of them with another default and range."""

    count: int = option(7, "how many tools", maximum=9)
    name: str | None = option(None, "the tool's name", aliases=("called", "-n"))


def shared_parser() -> Parser:
    parser = Parser("things", "Things.")
    parser.add_options(Toys, "toys")
    parser.add_options(Tools, "tools")
    return parser


def test_a_field_of_two_dataclasses_is_one_flag() -> None:
    given = shared_parser().parse(["-n", "Bo"])
    assert (read_options(given, Toys).count, read_options(given, Tools).count) == (3, 7)
    assert read_options(given, Toys).name == read_options(given, Tools).name == "Bo"
    given = shared_parser().parse(["--count", "12"])
    assert read_options(given, Toys).count == 12
    with pytest.raises(UserError, match="--count is 12; it must be at most 9"):
        read_options(given, Tools)


def test_what_was_given_is_known_even_where_it_is_the_default() -> None:
    assert vars(shared_parser().parse(["--count", "3"])) == {"count": 3}
    assert vars(shared_parser().parse(["--loud"])) == {"loud": True}


def test_help_tells_both_defaults_of_a_shared_flag(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        shared_parser().parse(["--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "how many (default: 3); of tools (default: 7)" in shown
    assert shown.count("--called") == 1


@pytest.mark.parametrize(
    "other",
    [
        option("red", "a colour", choices=("red", "green")),
        option("red", "a colour"),
        option("red", "a colour", choices=("red", "blue"), aliases=("paint",)),
        option("red", "a colour", choices=("red", "blue"), bare="blue"),
    ],
)
def test_two_fields_that_no_single_flag_can_serve_are_a_mistake(other: object) -> None:
    parser = Parser("things", "Things.")
    parser.add_options(Toys, "toys")
    clash = make_dataclass("Clash", [("colour", str, other)], frozen=True)
    with pytest.raises(ValueError, match="--colour is declared twice"):
        parser.add_options(clash, "clash")
    kind = make_dataclass("Kind", [("count", float, option(1.0, "how many"))], frozen=True)
    with pytest.raises(ValueError, match="--count is declared twice, as <class 'int'> and as <class 'float'>"):
        parser.add_options(kind, "kind")


def test_help_shows_defaults_that_are_values(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse("--help")
    shown = " ".join(capsys.readouterr().out.split())
    assert "how many (default: 3)" in shown
    assert "two numbers (default: 0.9,0.98)" in shown
    assert "whole numbers (default: 1)" in shown
    assert "nothing of it --loud" in shown
    assert "in 100% of a hand" in shown
    assert "default: None" not in shown
    assert "default: False" not in shown
