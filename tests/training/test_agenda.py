from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from small_runs import make_options

from seqba.training.agenda import Due, Position, due_after, lr_has_ended, reached_limit

MIDDLE = Position(updates=6, epochs=1)
"""The second update of the second epoch, of four each."""

END = Position(updates=8, epochs=2, ends_epoch=True)
SKIPPED = replace(MIDDLE, made_step=False)
SKIPPED_END = replace(END, made_step=False)


@pytest.mark.parametrize(
    ("options", "position", "expected"),
    [
        ({}, MIDDLE, Due()),
        ({}, END, Due(validate=True, save=True, names=("checkpoint2.pt",))),
        ({}, SKIPPED_END, Due(validate=True, save=True, names=("checkpoint2.pt",))),
        ({"no_epoch_checkpoints": True}, END, Due(validate=True, save=True)),
        ({"save_interval": 2}, END, Due(validate=True, save=True, names=("checkpoint2.pt",))),
        ({"save_interval": 3}, END, Due(validate=True)),
        ({"validate_interval": 3}, END, Due(save=True, names=("checkpoint2.pt",))),
        ({"save_interval": 3, "validate_interval": 3}, END, Due()),
        ({"validate_interval_updates": 3}, MIDDLE, Due(validate=True)),
        ({"validate_interval_updates": 4}, MIDDLE, Due()),
        ({"validate_interval_updates": 3}, SKIPPED, Due()),
        ({"save_interval_updates": 3}, MIDDLE, Due(validate=True, save=True, names=("checkpoint_2_6.pt",))),
        ({"save_interval_updates": 3}, SKIPPED, Due()),
        ({"save_interval_updates": 4}, END, Due(validate=True, save=True, names=("checkpoint2.pt",))),
        ({"save_interval_updates": 4, "save_interval": 3}, END, Due(validate=True, save=True)),
        ({"save_interval_updates": 4, "no_epoch_checkpoints": True}, END, Due(validate=True, save=True)),
    ],
)
def test_what_is_due(options: dict[str, Any], position: Position, expected: Due, tmp_path: Path) -> None:
    assert due_after(make_options(tmp_path, **options), position, is_final=False) == expected
    final = replace(expected, validate=True, save=True)
    assert due_after(make_options(tmp_path, **options), position, is_final=True) == final


@pytest.mark.parametrize(
    ("options", "changes", "expected"),
    [
        ({}, {}, None),
        ({"max_update": 7}, {}, None),
        ({"max_update": 6}, {}, "--max-update 6"),
        ({"max_update": 5}, {}, "--max-update 5"),
        ({"max_epoch": 2}, {}, None),
        ({"max_epoch": 1}, {}, "--max-epoch 1"),
        ({"stop_time_hours": 0.5}, {"elapsed_s": 1799.0}, None),
        ({"stop_time_hours": 0.5}, {"elapsed_s": 1800.0}, "--stop-time-hours 0.5"),
        ({"patience": 3}, {"validations_since_best": 2}, None),
        ({"patience": 3}, {"validations_since_best": 3}, "--patience 3"),
        ({"max_update": 6, "max_epoch": 1, "patience": 1}, {"validations_since_best": 1}, "--max-update 6"),
    ],
)
def test_which_limit_is_reached(
    options: dict[str, Any], changes: dict[str, Any], expected: str | None, tmp_path: Path
) -> None:
    assert reached_limit(make_options(tmp_path, **options), replace(MIDDLE, **changes)) == expected


def test_a_learning_rate_that_has_ended_is_the_last_limit(tmp_path: Path) -> None:
    options = make_options(tmp_path, stop_min_lr=0.01)
    assert reached_limit(options, MIDDLE, lr_has_ended=True) == "--stop-min-lr 0.01"
    assert reached_limit(make_options(tmp_path, max_epoch=1), MIDDLE, lr_has_ended=True) == "--max-epoch 1"


@pytest.mark.parametrize(
    ("lr", "next_lr", "expected"),
    [(0.02, 0.011, False), (0.02, 0.01, True), (0.02, 0.005, True), (0.002, 0.004, False), (0.004, 0.004, True)],
)
def test_a_learning_rate_ends_only_on_its_way_down(lr: float, next_lr: float, expected: bool) -> None:
    assert lr_has_ended(lr, next_lr, stop_min_lr=0.01) == expected
