"""Advice: the formulas with numbers worked by hand, and the sentence that fits."""

from __future__ import annotations

import json
import math

import pytest

from seqba.statistics import Advice, Estimate, PassCosts, VarianceSplit, advise


def split(signal: float, between: float, noise: float, *, error: float = 0.0) -> VarianceSplit:
    ratio = Estimate(noise / between, 0.1) if between > 0 else Estimate(math.inf)
    return VarianceSplit(Estimate(signal, error), Estimate(between), Estimate(noise), ratio, 100, 4)


def test_the_worth_of_copies_by_hand() -> None:
    """S_b = 4, S_w = 12: M = 4 has the variance (4 + 3)/B, so 16/7 times the examples; the most is 1 + 12/4 = 4."""
    advice = advise(split(1, 4, 12), batch_examples=8, copies=(4, 1, 2, 4))
    assert [row.copies for row in advice.rows] == [1, 2, 4]
    assert [row.examples.value for row in advice.rows] == pytest.approx([1, 16 / 10, 16 / 7])
    assert advice.rows[2].examples.error == pytest.approx(0.1 * (1 - 1 / 4) / (1 + 3 / 4) ** 2)
    assert advice.most_examples == 4
    assert advice.useful_copies == 3
    assert advice.noise_scale == 16
    # (8·1 + 4 + 12/M)/(8·1 + 4 + 12)
    assert [row.updates for row in advice.rows] == pytest.approx([1, 18 / 24, 15 / 24])


def test_updates_have_the_range_that_the_error_of_the_signal_leaves() -> None:
    (row,) = advise(split(1, 4, 12, error=1), batch_examples=8, copies=(4,)).rows
    assert row.updates_range == pytest.approx(((0 + 4 + 3) / 16, (24 + 4 + 3) / 40))
    assert row.updates_range[0] < row.updates < row.updates_range[1]


def test_a_signal_below_zero_counts_as_none() -> None:
    (row,) = advise(split(-1, 4, 12), batch_examples=8, copies=(4,)).rows
    assert row.updates == pytest.approx(7 / 16)
    assert advise(split(-1, 4, 12), batch_examples=8).noise_scale == math.inf


def test_costs_are_a_line_where_they_were_not_measured() -> None:
    costs = PassCosts("stacked", {1: 1.5, 2: 2.0, 4: 3.0})
    assert costs.line == pytest.approx((1.0, 0.5))
    assert costs.at(8) == pytest.approx(5.0)
    assert costs.at(2) == 2.0
    assert PassCosts("looped", {1: 1.0, 2: 2.5}).line == pytest.approx((0.0, 6 / 5))  # through the origin
    assert PassCosts("looped", {1: 2.0}).at(3) == 6.0


def test_a_busy_device_is_told_plainly() -> None:
    costs = (PassCosts("stacked", {1: 1.0, 2: 1.9, 4: 3.7}), PassCosts("looped", {1: 1.0, 2: 2.0, 4: 4.0}))
    advice = advise(split(1, 4, 12), batch_examples=8, costs=costs, read_s=0.1)
    found = advice.best()
    assert found is not None
    row, plan, time = found
    assert (row.copies, plan.plan, time) == (2, "stacked", pytest.approx(0.75 * 1.9))
    *_, line = advice.sentences()
    assert line == (
        "On this device copies don't pay as optimisation: at best M = 2 (stacked) needs 75% of the updates, each 1.90 "
        "times as long. They do through idle ranks (M = 3 on 3 of them: 67% of the time, messages not counted), costly "
        "reading (here 10.0% of an update), or generalisation, which no variance predicts."
    )
    assert advice.sentences()[0] == (
        "M = 3 is worth 2.00 times the examples, and infinitely many copies are worth 4.00 times: beyond M = 3 more "
        "examples reduce the variance, more copies hardly do."
    )


def test_a_device_with_room_is_told_which_copies_pay() -> None:
    costs = (PassCosts("stacked", {1: 1.0, 2: 1.05, 4: 1.2}),)
    advice = advise(split(1, 4, 12), batch_examples=8, costs=costs)
    assert advice.rows[2].time == {"stacked": pytest.approx(1.2 * 15 / 24)}
    assert advice.sentences()[-1] == (
        "On this device M = 4 (stacked) should come to the same loss in 75% of the time of M = 1: 62% of the updates, "
        "each 1.20 times as long."
    )


@pytest.mark.parametrize(
    ("parts", "batch", "words"),
    [
        ((1, 4, 0.1), 8, "The noise is 2.4% of a gradient's variance"),
        ((1, 4, 12), 1000, "Variance is 1.6% of the squared gradient of a batch of 1000 examples"),
        ((1, -1, 12), 8, "No variance between examples was seen"),
    ],
)
def test_what_copies_can_not_help_is_said(parts: tuple[float, float, float], batch: float, words: str) -> None:
    advice = advise(split(*parts), batch_examples=batch)
    assert advice.sentences()[0].startswith(words)


def test_advice_is_json() -> None:
    advice = advise(split(-1, -1, 12), batch_examples=8, costs=[PassCosts("stacked", {1: 1.0, 2: 2.0})])
    told = json.loads(json.dumps(advice.plain(), allow_nan=False))
    assert told["copies"][1]["worth_in_examples"] == 2
    assert told["most_examples"] is None
    assert told["costs"]["stacked"]["copy_s"] == 1


def test_what_can_not_be_advised_on_is_refused() -> None:
    with pytest.raises(ValueError, match="no time of an update at M = 1"):
        PassCosts("stacked", {2: 1.0})
    with pytest.raises(ValueError, match="times must be positive"):
        PassCosts("stacked", {1: 0.0})
    with pytest.raises(ValueError, match="batch_examples is 0"):
        advise(split(1, 4, 12), batch_examples=0)
    with pytest.raises(ValueError, match="copies are \\[0\\]"):
        advise(split(1, 4, 12), batch_examples=1, copies=(0,))
    with pytest.raises(ValueError, match="there is no variance"):
        advise(split(1, 0, 0), batch_examples=1)


def test_without_times_nothing_is_said_of_time() -> None:
    advice: Advice = advise(split(1, 4, 12), batch_examples=8)
    assert advice.best() is None
    assert len(advice.sentences()) == 1


def test_a_fork_averages_the_noise_above_it_alone() -> None:
    """S_b = 4, S_w = 12, B·|G|² = 8: 24 in all; half of the noise above leaves 12 + 6 + 6/4 = 19.5 of it at M = 4."""
    costs = [
        PassCosts("stacked", {1: 1.0, 4: 4.0}),
        PassCosts("stacked, encoder", {1: 1.0, 4: 1.1}, noise_above=0.5),
    ]
    advice = advise(split(1, 4, 12), batch_examples=8, copies=(4,), costs=costs)
    (row,) = advice.rows
    assert row.time["stacked"] == pytest.approx(4 * 15 / 24)
    assert row.time["stacked, encoder"] == pytest.approx(1.1 * 19.5 / 24)
    best = advice.best()
    assert best is not None
    assert best[1].plan == "stacked, encoder"
    assert (
        "M = 4 (stacked, encoder) should come to the same loss in 89% of the time of M = 1: 81% of the updates"
        in str(advice.sentences())
    )
    assert advice.plain()["costs"]["stacked, encoder"]["noise_above"] == 0.5


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_a_share_of_noise_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match="must be a share from 0 to 1"):
        PassCosts("stacked", {1: 1.0}, noise_above=share)
