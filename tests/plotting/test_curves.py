from __future__ import annotations

import math
from typing import Any

import pytest

from seqba.errors import UserError
from seqba.plotting.curves import curve_over_copies, group_runs, label_of, make_curve, quantities
from seqba.plotting.logs import RunLines


def train(update: int, nll: float | None, **more: Any) -> dict[str, Any]:
    values = {"processed_tokens": 100 * update, "seconds_per_update": 0.5}
    return {"event": "train", "update": update, "epoch": 1, "nll": nll, **values, **more}


def valid(update: int, nll: float, subset: str = "valid") -> dict[str, Any]:
    return {"event": "valid", "subset": subset, "update": update, "epoch": 1, "nll": nll}


def run(
    name: str, *lines: dict[str, Any], arm: str | None = "ba", copies: int = 1, seed: int = 1, **settings: Any
) -> RunLines:
    return RunLines(name, arm, copies, seed, lines, {f"--{name}": value for name, value in settings.items()})


def test_a_curve_is_the_mean_over_seeds_with_its_deviation() -> None:
    runs = [
        run("a", train(10, 3.0), train(20, 2.0), train(30, 1.0), seed=1),
        run("b", train(10, 5.0), train(20, 2.0), seed=2),  # it is still going
    ]
    curve = make_curve("ba", runs, "train", x="update", y="nll")
    assert curve is not None
    assert (curve.x, curve.y, curve.seeds) == ((10, 20), (4.0, 2.0), 2)
    assert curve.spread == pytest.approx((math.sqrt(2), 0.0))  # ((3 − 4)² + (5 − 4)²) / (2 − 1)


@pytest.mark.parametrize(
    ("x", "expected"),
    [
        ("update", (5, 20)),
        ("processed", (500, 2000)),
        ("elapsed_s", (2.5, 20.0)),  # 5 · 0.5; 10 · 0.5 + 10 · 1.5
        ("lr", (0.05, 0.4)),  # from 0 on between the lines
    ],
)
def test_validations_have_their_place_between_the_lines_of_training(x: str, expected: tuple[float, float]) -> None:
    lines = [valid(5, 4.0), train(10, 3.0, lr=0.1), valid(20, 2.0), train(20, 1.0, lr=0.4, seconds_per_update=1.5)]
    curve = make_curve("ba", [run("a", *lines, valid(25, 1.0))], "valid", x=x, y="nll")
    assert curve is not None
    assert curve.x[:2] == pytest.approx(expected)
    assert len(curve.x) == (3 if x == "update" else 2)  # no one knows yet what the third had processed


def test_values_that_are_not_there_leave_no_point() -> None:
    lines = run("a", train(10, None), train(20, 2.0), train(30, 1.0))
    curve = make_curve("ba", [lines], "train", x="update", y="nll")
    assert curve is not None
    assert (curve.x, curve.spread) == ((20, 30), (0.0, 0.0))
    assert make_curve("ba", [lines], "valid", x="update", y="nll") is None
    assert make_curve("ba", [lines], "train", x="update", y="bleu") is None


def test_smoothing_is_of_training_alone() -> None:
    lines = run("a", train(10, 3.0), train(20, 1.0), train(30, 2.0), valid(10, 3.0), valid(20, 1.0))
    curve = make_curve("ba", [lines], "train", x="update", y="nll", smooth=2)
    assert curve is not None
    assert curve.y == (3.0, 2.0, 1.5)
    curve = make_curve("ba", [lines], "valid", x="update", y="nll", smooth=2)
    assert curve is not None
    assert curve.y == (3.0, 1.0)


def test_the_first_split_is_taken_unless_another_is_named() -> None:
    lines = run("a", valid(10, 3.0), valid(10, 5.0, "valid1"), valid(20, 1.0), valid(20, 4.0, "valid1"))
    for subset, expected in ((None, (3.0, 1.0)), ("valid1", (5.0, 4.0))):
        curve = make_curve("ba", [lines], "valid", x="update", y="nll", subset=subset)
        assert curve is not None
        assert curve.y == expected
    assert make_curve("ba", [lines], "valid", x="update", y="nll", subset="test") is None


def test_arms_and_numbers_of_copies_are_groups() -> None:
    runs = [
        run("a", arm="ba", copies=4, seed=1),
        run("b", arm="baseline"),
        run("c", arm="ba", copies=4, seed=2),
        run("d", arm="ba", copies=8),
        run("e", arm=None),
    ]
    groups = group_runs(runs, "arm")
    assert {label: [each.name for each in members] for label, members in groups.items()} == {
        "ba, M = 4": ["a", "c"],
        "baseline": ["b"],
        "ba, M = 8": ["d"],
        "e": ["e"],
    }
    assert list(group_runs(runs, "run")) == ["a", "b", "c", "d", "e"]


def test_runs_that_are_no_seeds_of_each_other_are_told() -> None:
    with pytest.raises(UserError, match="a and b are both ba with seed 1: add --by run"):
        group_runs([run("a"), run("b")], "arm")
    with pytest.raises(UserError, match="two runs are called a"):
        group_runs([run("a"), run("a", seed=2)], "run")


def test_runs_with_other_options_are_no_seeds_of_one_arm() -> None:
    runs = [run("a", lr=0.1), run("b", seed=2, lr=0.2), run("c", seed=3, lr=0.1, clip=1.0)]  # an older run had no clip
    with pytest.raises(UserError, match=r"a and b are both ba but no seeds of one arm: --lr is 0.1 in the one and 0.2"):
        group_runs(runs, "arm")
    assert list(group_runs(runs, "run")) == ["a", "b", "c"]
    assert list(group_runs([runs[0], runs[2]], "arm")) == ["ba"]
    with pytest.raises(UserError, match=r"different in more than M: --lr is 0\.1"):
        curve_over_copies(
            [run("a", train(10, 3.0), lr=0.1), run("b", train(10, 3.0), copies=4, lr=0.2)], "train", "nll"
        )


def test_labels_have_units() -> None:
    of_tokens = [run("a", train(10, 3.0))]
    of_images = [run("a", {"event": "train", "update": 1, "processed_images": 3, "top1": 4.0})]
    assert label_of("nll", of_tokens) == "negative log-likelihood (nats per token)"
    assert label_of("loss", of_images) == "loss (nats per image)"
    assert label_of("processed", of_images) == "processed images"
    assert label_of("top1", of_images) == "top-1 accuracy (%)"
    assert label_of("clip_rate", of_images) == "clip rate"
    assert quantities(of_images) == ["processed_images", "top1", "update"]
