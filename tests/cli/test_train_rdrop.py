"""R-Drop by fairseq's options, in seqba-train."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from commands import train_complaint
from reversal import train_arguments

from seqba.checkpoints.file import read_checkpoint
from seqba.cli.train import build_parser, main, read_config
from seqba.training.folder import LAST

RDROP = ["--criterion", "label_smoothed_cross_entropy_with_rdrop", "--rdrop-alpha", "5"]


pytestmark = pytest.mark.usefixtures("one_thread")


def test_rdrop_takes_two_copies_in_one_pass_unless_told_otherwise(reversal: Path, tmp_path: Path) -> None:
    arguments = train_arguments(reversal, tmp_path)
    place = arguments.index("--copies")
    untold = [*arguments[:place], *arguments[place + 2 :], *RDROP]
    for given, copies in ((untold, 2), ([*arguments, "--copies", "3", *RDROP], 3)):
        grid = read_config(build_parser().parse(given)).training.grid
        assert (grid.copies, grid.plan) == (copies, "stacked")
    assert main([*untold, "--max-update", "5"]) == 0
    line = json.loads((tmp_path / "log.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert line["divergence"] > 0
    assert line["processed_tokens"] == 2 * line["unique_tokens"]


def test_rdrops_option_is_twice_the_general_one(reversal: Path, tmp_path: Path) -> None:
    smoothed = ["--criterion", "label_smoothed_cross_entropy", "--consistency", "2.5"]
    for name, loss in {"rdrop": RDROP, "consistency": smoothed}.items():
        arguments = [*train_arguments(reversal, tmp_path / name), "--copies", "3", "--label-smoothing", "0.1"]
        assert main([*arguments, *loss, "--max-update", "2"]) == 0
    one, other = (read_checkpoint(tmp_path / name / LAST)["model"] for name in ("rdrop", "consistency"))
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("plan", ["looped", "auto", "2"])
def test_rdrop_makes_the_same_weights_in_every_plan(plan: str, reversal: Path, tmp_path: Path) -> None:
    made = []
    for each in ("stacked", plan):
        arguments = [*train_arguments(reversal, tmp_path / each), *RDROP, "--copies", "3", "--update-freq", "2"]
        assert main([*arguments, "--optimizer", "sgd", "--dropout", "0.3", "--plan", each, "--max-update", "4"]) == 0
        state = read_checkpoint(tmp_path / each / LAST)["model"]
        made.append(torch.cat([weight.flatten() for weight in state.values()]))
    assert float((made[1] - made[0]).norm() / made[0].norm()) < 1e-5


@pytest.mark.parametrize("place", ["encoder", "decoder-layer-1"])
def test_rdrop_compares_copies_that_begin_inside_the_network(place: str, reversal: Path, tmp_path: Path) -> None:
    arguments = [*train_arguments(reversal, tmp_path), *RDROP, "--copies", "3", "--fork", place]
    assert main([*arguments, "--decoder-layers", "2", "--max-update", "5"]) == 0
    line = json.loads((tmp_path / "log.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert line["divergence"] > 0
    assert line["processed_tokens"] == 3 * line["unique_tokens"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--copies", "1"], "--rdrop-alpha compares the copies of an example, and --arm ba with --copies 1 has one"),
        (["--arm", "baseline"], "and --arm baseline with --copies 2 has one: give --copies 2"),
        (
            ["--criterion", "label_smoothed_cross_entropy"],
            "--rdrop-alpha has no effect on label_smoothed_cross_entropy",
        ),
        (
            ["--measure-every", "5"],
            "gradients of single copies, which --rdrop-alpha makes depend on each other: leave one out",
        ),
        (["--shard-params"], "--rdrop-alpha excludes --shard-params"),
    ],
)
def test_rdrop_needs_copies_to_compare(
    more: list[str], message: str, reversal: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in train_complaint([*train_arguments(reversal, tmp_path), *RDROP, *more], capsys)
