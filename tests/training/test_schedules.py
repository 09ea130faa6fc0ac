from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from small_runs import make_options
from torch import nn

from seqba.errors import UserError
from seqba.nn import DropPath
from seqba.training.options import ScheduleOptions
from seqba.training.regime import build_schedule, schedule_drop_path
from seqba.training.schedules import cosine, fixed, inverse_sqrt, polynomial_decay, step, vaswani


@pytest.mark.parametrize(
    ("update", "expected"), [(1, 2e-4), (2, 4e-4), (4, 8e-4), (5, 1e-3), (20, 5e-4), (80, 2.5e-4), (500, 1e-4)]
)
def test_inverse_sqrt_by_hand(update: int, expected: float) -> None:
    assert inverse_sqrt(update, peak_lr=1e-3, warmup_updates=5) == pytest.approx(expected, rel=1e-12)


def test_inverse_sqrt_warms_up_from_its_initial_rate() -> None:
    rates = [inverse_sqrt(update, peak_lr=1.0, warmup_updates=4, warmup_init_lr=0.2) for update in (1, 2, 3, 4)]
    assert rates == pytest.approx([0.4, 0.6, 0.8, 1.0], rel=1e-12)


def test_vaswani_by_hand() -> None:
    # 512^-0.5 = 0.044194174; 4000^-0.5 = 0.015811388: the paper's peak.
    assert vaswani(4000, width=512, warmup_updates=4000) == pytest.approx(6.987712e-4, rel=1e-6)
    assert vaswani(1, width=512, warmup_updates=4000) == pytest.approx(1.746928e-7, rel=1e-6)
    assert vaswani(16000, width=512, warmup_updates=4000) == pytest.approx(6.987712e-4 / 2, rel=1e-6)


def test_vaswani_is_inverse_sqrt_with_its_own_peak() -> None:
    for update in (1, 37, 100, 101, 5000):
        expected = inverse_sqrt(update, peak_lr=(64 * 100) ** -0.5, warmup_updates=100)
        assert vaswani(update, width=64, warmup_updates=100) == pytest.approx(expected, rel=1e-12)


def test_fixed_stays_after_its_warmup() -> None:
    assert [fixed(update, lr=0.5, warmup_updates=4) for update in (1, 2, 4, 5, 1000)] == [0.125, 0.25, 0.5, 0.5, 0.5]
    assert fixed(1, lr=0.5) == 0.5


def test_step_falls_after_its_drops() -> None:
    rates = [step(update, lr=1.0, drops=(2, 4), factors=(0.5, 0.1)) for update in (1, 2, 3, 4, 5, 500)]
    assert rates == pytest.approx([1.0, 1.0, 0.5, 0.5, 0.05, 0.05], rel=1e-12)


def test_step_warms_up() -> None:
    rates = [step(update, lr=1.0, drops=(6,), factors=(0.1,), warmup_updates=4) for update in (1, 4, 6, 7)]
    assert rates == pytest.approx([0.25, 1.0, 1.0, 0.1], rel=1e-12)


def test_step_warms_up_from_the_rate_of_a_small_batch() -> None:
    """Goyal et al.: from 0.1 to 3.2 by equal steps."""
    rates = [
        step(update, lr=3.2, drops=(6,), factors=(0.1,), warmup_updates=4, warmup_init_lr=0.1)
        for update in (1, 2, 3, 4, 5, 7)
    ]
    assert rates == pytest.approx([0.875, 1.65, 2.425, 3.2, 3.2, 0.32], rel=1e-12)


@pytest.mark.parametrize(("factor", "expected"), [(2.0, 2.0), ("M", 16), ("M^0.25", 2), ("M^0.5", 4), ("M^2", 256)])
@pytest.mark.parametrize("update", [1, 5, 9])
def test_all_rates_are_multiplied_by_the_factor(factor: float | str, expected: float, update: int) -> None:
    options = ScheduleOptions(lr_scheduler="step", lr=0.1, lr_drops=(6,), lr_drop_unit="update", warmup_updates=4)
    plain = build_schedule(options, width=None, epoch_updates=int, copies=16)
    scaled = build_schedule(replace(options, lr_factor=factor), width=None, epoch_updates=int, copies=16)
    assert scaled(update) == pytest.approx(expected * plain(update), rel=1e-12)


@pytest.mark.parametrize("text", ["M^", "m", "copies", "M^x", "M^nan", "M^5", "M^0.5^2"])
def test_factors_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"--lr-factor: .*M"):
        ScheduleOptions(lr=0.1, lr_factor=text)


def test_drops_in_epochs_come_after_whole_epochs_of_the_baseline() -> None:
    options = ScheduleOptions(lr_scheduler="step", lr=0.1, lr_drops=(81, 122), lr_shrink=(0.1, 0.5))
    schedule = build_schedule(options, width=None, epoch_updates=lambda: 781)
    boundaries = [81 * 781, 81 * 781 + 1, 122 * 781, 122 * 781 + 1]
    assert [schedule(update) for update in boundaries] == pytest.approx([0.1, 0.01, 0.01, 0.005], rel=1e-12)


def test_drops_in_updates_ask_for_no_epoch() -> None:
    options = ScheduleOptions(lr_scheduler="step", lr=0.1, lr_drops=(3,), lr_drop_unit="update")

    def none() -> int:
        raise AssertionError("no epoch is needed")

    schedule = build_schedule(options, width=None, epoch_updates=none)
    assert [schedule(3), schedule(4)] == pytest.approx([0.1, 0.01], rel=1e-12)


def test_a_model_without_embedding_has_no_vaswani() -> None:
    with pytest.raises(UserError, match="this model has none"):
        build_schedule(ScheduleOptions(lr_scheduler="vaswani"), width=None, epoch_updates=int)


@pytest.mark.parametrize("update", [0, -1])
def test_updates_count_from_one(update: int) -> None:
    for schedule in (
        lambda: fixed(update, lr=1.0),
        lambda: inverse_sqrt(update, peak_lr=1.0, warmup_updates=1),
        lambda: vaswani(update, width=4, warmup_updates=1),
        lambda: step(update, lr=1.0, drops=(1,), factors=(0.1,)),
    ):
        with pytest.raises(ValueError, match="count from 1"):
            schedule()


@pytest.mark.parametrize(
    ("options", "update", "expected"),
    [
        (ScheduleOptions(lr=0.1), 7, 0.1),
        (ScheduleOptions(lr=0.1, warmup_updates=14), 7, 0.05),
        (ScheduleOptions(lr_scheduler="inverse_sqrt", lr=0.1), 4000, 0.1),
        (ScheduleOptions(lr_scheduler="inverse_sqrt", lr=0.1, warmup_updates=10, warmup_init_lr=0.05), 5, 0.075),
        (ScheduleOptions(lr_scheduler="vaswani", warmup_updates=100), 100, 0.0125),
    ],
)
def test_options_choose_the_schedule(options: ScheduleOptions, update: int, expected: float) -> None:
    assert build_schedule(options, width=64, epoch_updates=int)(update) == pytest.approx(expected, rel=1e-12)


def test_cosine_by_hand() -> None:
    rates = [cosine(update, peak_lr=1.0, period=4, min_lr=0.2, warmup_updates=2) for update in (1, 2, 3, 4, 5)]
    quarter = 0.4 * 2**-0.5  # cos(π/4) of half the distance
    assert rates == pytest.approx([0.5, 1.0, 0.6 + quarter, 0.6, 0.6 - quarter], rel=1e-12)


@pytest.mark.parametrize("growth", [1.0, 2.0])
def test_periods_of_cosine_grow_and_shrink(growth: float) -> None:
    def rate(update: int) -> float:
        return cosine(update, peak_lr=1.0, period=4, growth=growth, shrink=0.5, warmup_updates=2)

    first_end, second_end = 6, 6 + 4 * int(growth)
    assert [rate(2), rate(4)] == pytest.approx([1.0, 0.5], rel=1e-12)
    assert [rate(first_end), rate(second_end)] == pytest.approx([0, 0], abs=1e-12)
    assert rate(first_end + 2 * int(growth)) == pytest.approx(0.25, rel=1e-12)  # half-way through the second
    assert rate(first_end + 1) > 0.35
    assert 0.17 < rate(second_end + 1) < 0.25
    assert rate(1) == 0.5


def test_cosine_without_a_period_falls_until_the_last_update() -> None:
    options = ScheduleOptions(lr_scheduler="cosine", lr=1.0, min_lr=0.2, warmup_updates=10)
    schedule = build_schedule(options, width=None, epoch_updates=lambda: 1, max_update=110)
    assert [schedule(update) for update in (5, 10, 60)] == pytest.approx([0.6, 1.0, 0.6], rel=1e-12)
    assert schedule(109) == pytest.approx(0.2, abs=1e-3)
    assert schedule(110) == pytest.approx(0.2, rel=1e-12)
    with pytest.raises(UserError, match="cosine needs --lr-period-updates"):
        build_schedule(options, width=None, epoch_updates=lambda: 1, max_update=10)


def test_polynomial_decay_by_hand() -> None:
    def rates(power: float) -> list[float]:
        return [
            polynomial_decay(update, lr=1.0, total_updates=12, end_lr=0.2, power=power, warmup_updates=2)
            for update in (1, 2, 7, 12, 99)
        ]

    assert rates(1.0) == pytest.approx([0.5, 1.0, 0.6, 0.2, 0.2], rel=1e-12)
    assert rates(2.0) == pytest.approx([0.5, 1.0, 0.4, 0.2, 0.2], rel=1e-12)


def test_polynomial_decay_ends_with_the_run_unless_told_otherwise() -> None:
    options = ScheduleOptions(lr_scheduler="polynomial_decay", lr=1.0)
    assert build_schedule(options, width=None, epoch_updates=lambda: 1, max_update=10)(5) == pytest.approx(0.5)
    with pytest.raises(UserError, match="polynomial_decay needs --total-num-update"):
        build_schedule(options, width=None, epoch_updates=lambda: 1)


@pytest.mark.parametrize(
    ("limits", "expected"), [({"max_epoch": 5}, 0.4), ({"max_epoch": 5, "drop_path_epochs": 8}, 0.25)]
)
def test_drop_path_rises_with_the_baselines_epochs(limits: dict[str, int], expected: float, tmp_path: Path) -> None:
    model = nn.Sequential(DropPath(0.2), nn.Sequential(DropPath(0.2), DropPath(0.0)))
    options = make_options(tmp_path, **limits)
    schedule_drop_path(model, options, epoch_updates=lambda: 10)
    for path in (model[0], model[1][0]):
        assert [path.rise(update) for update in (1, 10, 21, 30)] == [0, 0, expected, expected]
    assert model[1][1].rise is None


def test_a_rise_that_can_not_be_is_one_line(tmp_path: Path) -> None:
    def refused(model: nn.Module, message: str, **changes: object) -> None:
        with pytest.raises(UserError, match=message):
            schedule_drop_path(model, make_options(tmp_path, **changes), epoch_updates=lambda: 10)

    refused(DropPath(0.2), "say with --drop-path-epochs, or --max-epoch, how many", max_epoch=0, max_update=9)
    refused(DropPath(0.2), "needs one --update-freq for all of them", max_epoch=3, update_freq=(1, 2))
    for model in (DropPath(0), nn.Linear(2, 2)):
        refused(
            model, "--drop-path-epochs is for DARTS, AmoebaNet and NASNet with --drop-path above 0", drop_path_epochs=3
        )
        schedule_drop_path(model, make_options(tmp_path, max_epoch=0, max_update=9), epoch_updates=lambda: 10)
