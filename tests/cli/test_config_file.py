from __future__ import annotations

from pathlib import Path

import pytest

from seqba.cli.arguments import Given, Parser, read_options
from seqba.errors import UserError
from seqba.options import option, options
from seqba.training.config_record import toml_value


@options
class Toys:
    """One field of each kind."""

    count: int = option(3, "how many", minimum=1)
    size: float | None = option(None, "how large", above=0)
    betas: tuple[float, ...] = option((0.9, 0.98), "two numbers", minimum=0, below=1)
    parts: tuple[int, ...] = option((1,), "whole numbers", minimum=1)
    loud: bool = option(False, "makes a noise")
    no_paint: bool = option(False, "leaves it bare")
    colour: str = option("red", "which colour", choices=("red", "blue"))
    owner_name: str | None = option(None, "its name", aliases=("called", "-n"))
    joint: str | None = option(None, "what joins it", bare="glue")
    friends: str | None = option(None, "names, separated by commas", metavar="NAME[,NAME]")
    boxes: str | None = option(None, "files, separated by colons", metavar="A[:B]")
    pace: int = option(1, "a number, or a word for it", read=lambda text: {"slow": 1, "fast": 9}[text], metavar="WORD")


def toy_parser(*, needs_data: bool = False) -> Parser:
    parser = Parser("toys", "Toys.", unsupported={"--wings": "toys don't fly"})
    parser.add_argument("data", metavar="FOLDER", nargs=None if needs_data else "?")
    parser.add_argument("--task", default="play")
    parser.add_argument("--inputs", nargs="+", required=needs_data)
    parser.add_options(Toys, "toys")
    return parser


def given(tmp_path: Path, text: str, *arguments: str, name: str = "toys.toml", needs_data: bool = False) -> Given:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return toy_parser(needs_data=needs_data).parse(["--config", str(path), *arguments])


def toys(tmp_path: Path, text: str, *arguments: str, name: str = "toys.toml") -> Toys:
    return read_options(given(tmp_path, text, *arguments, name=name), Toys)


EVERY_KIND_TOML = """
# A comment, and names with dashes or underscores.
count = 5
size = 2            # a whole number is a number too
betas = [0.5, 0.25]
parts = 4
loud = true
no-paint = false
colour = "blue"
owner-name = "Bo = \\"count = 7\\""
joint = true
friends = ["Al", "Cy"]
boxes = ["a b", "c,d"]
pace = "fast"
"""
EVERY_KIND_YAML = """
count: 5
size: 2
betas: (0.5, 0.25)
parts: [4]
loud: yes
no_paint: false
colour: blue
owner_name: 'Bo = "count = 7"'
joint: true
friends: Al,Cy
boxes: [a b, "c,d"]
pace: fast
"""


@pytest.mark.parametrize(
    ("name", "text"), [("t.toml", EVERY_KIND_TOML), ("t.yaml", EVERY_KIND_YAML), ("t.yml", EVERY_KIND_YAML)]
)
def test_every_kind_of_option(name: str, text: str, tmp_path: Path) -> None:
    if name != "t.toml":
        pytest.importorskip("yaml")
    assert toys(tmp_path, text, name=name) == Toys(
        count=5,
        size=2,
        betas=(0.5, 0.25),
        parts=(4,),
        loud=True,
        colour="blue",
        owner_name='Bo = "count = 7"',
        joint="glue",
        friends="Al,Cy",
        boxes="a b:c,d",
        pace=9,
    )


def test_flags_go_before_the_file(tmp_path: Path) -> None:
    text = 'count = 5\nloud = true\nno_paint = true\ncolour = "blue"\njoint = "nail"\ntask = "work"\ncalled = "Bo"\n'
    assert toys(tmp_path, text, "--no-loud", "--paint", "--count", "3", "-n", "Al", "--joint") == Toys(
        colour="blue", joint="glue", owner_name="Al"
    )
    assert given(tmp_path, text).task == "work"
    assert given(tmp_path, text, "--task", "play").task == "play"
    assert not toys(tmp_path, "loud = true\n", "--no-loud").loud


def test_a_file_says_where_arguments_without_flags_come_from(tmp_path: Path) -> None:
    text = 'folder = "bin"\ninputs = ["a", "b"]\n'
    assert given(tmp_path, 'data = "bin"\n').data == "bin"
    from_file = given(tmp_path, text, needs_data=True)
    assert (from_file.data, from_file.inputs) == ("bin", ["a", "b"])
    from_both = given(tmp_path, text, "other", "--inputs", "c", needs_data=True)
    assert (from_both.data, from_both.inputs) == ("other", ["c"])
    parser = toy_parser(needs_data=True)
    parser.parse(["--config", str(tmp_path / "toys.toml")])
    with pytest.raises(UserError, match="required: FOLDER"):  # the next command line has no file
        parser.parse(["--inputs", "a"])


def test_a_later_file_goes_before_an_earlier_one(tmp_path: Path) -> None:
    (tmp_path / "base.toml").write_text("count = 5\nsize = 2.5\n", encoding="utf-8")
    (tmp_path / "more.toml").write_text("count = 6\n", encoding="utf-8")
    arguments = [f"--config={tmp_path / 'base.toml'}", "--config", str(tmp_path / "more.toml")]
    assert read_options(toy_parser().parse(arguments), Toys) == Toys(count=6, size=2.5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("count = 5\ncuont = 5\n", "toys.toml line 2: toys: unknown argument '--cuont'; did you mean --count?"),
        ("\nwings = 2\n", "toys.toml line 2: toys: --wings is not an option here: toys don't fly"),
        ("config = 'other.toml'\n", "line 1: config stands on the command line alone"),
        ("no_loud = true\n", "line 1: toys: unknown argument '--no-loud'"),
        ("help = true\n", "line 1: help stands on the command line alone"),
        ("count = 1.5\n", "line 1: count is 1.5; it takes a whole number"),
        ("count = '5'\n", "line 1: count is '5'; it takes a whole number"),
        ("count = true\n", "line 1: count is true; it takes a whole number"),
        ("count = [5]\n", "line 1: count is a list; it takes a whole number"),
        ("size = '2.5'\n", "line 1: size is '2.5'; it takes a number"),
        ("size = 2026-11-26\n", "line 1: size is 2026-11-26; it takes a number"),
        ("size = inf\n", "line 1: --size is inf; it must be a finite number"),
        ("loud = 1\n", "line 1: loud is 1; it takes true or false"),
        ("loud = 'yes'\n", "line 1: loud is 'yes'; it takes true or false"),
        ("colour = 3\n", 'line 1: colour is 3; it takes text: write it in quotes, "3"'),
        ("colour = false\n", "line 1: colour is false; it takes text"),
        ("colour = 'green'\n", "line 1: colour: invalid choice: 'green'"),
        ("betas = [0.5, 'x']\n", "line 1: betas: '0.5,x' is not a list of numbers"),
        ("betas = [[0.5], 0.2]\n", "line 1: betas is a list; it takes a list of numbers"),
        ("betas = []\n", "line 1: betas is an empty list; it takes a list of numbers"),
        ("betas = true\n", "line 1: betas is true; it takes a list of numbers"),
        ("\n\ncount = 0\n", "line 3: --count is 0; it must be at least 1"),
        ("betas = [0.5, 2]\n", "line 1: --betas is 2; it must be less than 1"),
        ("owner-name = 'a'\ncalled = 'b'\n", "line 2: called is set twice, before as owner-name"),
        ("no-paint = true\nno_paint = true\n", "line 2: no_paint is set twice"),
        ("[toys]\ncount = 3\n", "line 1: toys is a table: options stand at the top of the file, outside tables"),
        ("[count]\nx = 3\n", "line 1: count is a table; it takes a whole number"),
        ("inputs = ['a', 3]\n", "line 1: inputs is 3; it takes text, or a list of text"),
        ("inputs = []\n", "line 1: inputs is an empty list; it takes text, or a list of text"),
        ("owner-name = ['a']\n", "line 1: owner-name is a list; it takes text"),
        ("friends = ['a', 3]\n", "line 1: friends is 3; it takes text, or a list of text: write it in quotes"),
        ("friends = ['a', 'b,c']\n", "line 1: friends has 'b,c' in its list, where ',' stands between two values"),
        ("boxes = ['a:b']\n", "line 1: boxes has 'a:b' in its list, where ':' stands between two values"),
        ("pace = true\n", "line 1: pace is true; it takes WORD"),
        ("count = \n", "is not TOML: Invalid value (at line 1, column 9)"),
        ("a = " + "[" * 5000, "nested too deeply"),
        ("count = 3\nname = 'gr\udcfcn'\n", "line 2"),
        ("\x00\x01", "toys.toml"),
    ],
)
def test_mistakes_name_the_file_and_the_line(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "toys.toml"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(UserError) as caught:
        read_options(toy_parser().parse(["--config", str(path)]), Toys)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("count: 5\ncuont: 5\n", "toys.yaml line 2: toys: unknown argument '--cuont'"),
        ("count: 5\ncount: 6\n", "toys.yaml line 2: count is set twice"),
        ("count: '5'\n", "line 1: count is '5'; it takes a whole number"),
        ("- count\n", "is not a table of options"),
        ("count: {a: 1}\n", "line 1: count is a table"),
        ("size:\n", "line 1: size is nothing; it takes a number"),
        ("count: [\n", "is not YAML"),
        ("count: !!python/object/apply:os.getcwd []\n", "is not YAML"),
        ("a: &a [x]\nb: *c\n", "is not YAML"),
    ],
)
def test_mistakes_in_yaml(text: str, message: str, tmp_path: Path) -> None:
    pytest.importorskip("yaml")
    with pytest.raises(UserError) as caught:
        toys(tmp_path, text, name="toys.yaml")
    assert message in str(caught.value)


@pytest.mark.parametrize("text", ["5e-4", "5E-4", "+5.e-4", ".0005", "0.0005"])
def test_numbers_in_yaml_are_numbers(text: str, tmp_path: Path) -> None:
    pytest.importorskip("yaml")
    assert toys(tmp_path, f"size: {text}\n", name="toys.yaml").size == 5e-4
    assert toys(tmp_path, "", name="toys.yaml") == Toys()


def test_a_file_that_is_not_there_and_one_of_another_kind_are_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--config .*none\.toml does not exist"):
        toy_parser().parse(["--config", str(tmp_path / "none.toml")])
    with pytest.raises(UserError, match=r"must end in \.toml"):
        toy_parser().parse(["--config", "run.json"])
    with pytest.raises(UserError, match="expected one argument"):
        toy_parser().parse(["--config"])


@pytest.mark.parametrize("value", [True, False, 3, 2**63 - 1, 1e-05, 0.1, 'a "b" \\ c', "ü\x7f\x01\n\t", [1, 2], [0.5]])
def test_what_is_written_is_read_again(value: object, tmp_path: Path) -> None:
    tomllib = pytest.importorskip("tomllib")
    assert tomllib.loads(f"x = {toml_value(value)}")["x"] == value
