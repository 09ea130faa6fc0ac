from __future__ import annotations

from dataclasses import dataclass

import pytest

from seqba.cli.arguments import Parser, read_options
from seqba.errors import UserError
from seqba.options import option


@dataclass(frozen=True)
class Toys:
    """One field of each kind."""

    count: int = option(3, "how many", minimum=1)
    size: float | None = option(None, "how large, in 100% of a hand", above=0)
    betas: tuple[float, ...] = option((0.9, 0.98), "two numbers", minimum=0, below=1)
    shards: tuple[int, ...] = option((1,), "whole numbers", minimum=1)
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


def test_help_shows_defaults_that_are_values(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse("--help")
    shown = " ".join(capsys.readouterr().out.split())
    assert "how many (default: 3)" in shown
    assert "in 100% of a hand" in shown
    assert "default: None" not in shown
    assert "default: False" not in shown
