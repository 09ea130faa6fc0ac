from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from seqba.training.progress import Progress


def test_judging_counts_validations_since_the_best() -> None:
    progress = Progress()
    verdicts = [progress.record_validation(value, maximize=False) for value in (3.0, 2.0, 2.0, math.nan, 2.5, 1.0)]
    assert verdicts == [True, True, False, False, False, True]
    assert (progress.best, progress.validations_since_best) == (1.0, 0)
    assert not progress.record_validation(1.5, maximize=False)
    assert progress.validations_since_best == 1


def test_judging_upwards() -> None:
    progress = Progress()
    assert [progress.record_validation(value, maximize=True) for value in (3.0, 2.0, 4.0)] == [True, False, True]


def test_extra_state_comes_back() -> None:
    progress = Progress(epoch=3, updates_in_epoch=7, best=1.5, best_checkpoints=[(1.5, "a.pt")], latest={"loss": 1.5})
    extra_state = progress.extra_state()
    assert Progress.from_extra_state(extra_state) == progress
    assert extra_state["train_iterator"]["epoch"] == 3
    assert extra_state["train_iterator"]["iterations_in_epoch"] == 7
    assert extra_state["val_loss"] == extra_state["best"] == 1.5


def test_a_foreign_extra_state_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        Progress.from_extra_state({"train_iterator": {}})


@pytest.mark.parametrize(
    ("name", "value"), [("epoch", "3"), ("best", "low"), ("latest", None), ("validation_pending", 1)]
)
def test_a_counter_of_another_type_is_a_type_error(name: str, value: object) -> None:
    extra_state = Progress(best=2.0).extra_state()
    extra_state["progress"][name] = value
    with pytest.raises(TypeError, match=f"{name} is {value!r}"):
        Progress.from_extra_state(extra_state)


def test_resets() -> None:
    progress = Progress(epoch=3, updates_in_epoch=7, best=1.5, unique=10, elapsed_s=5.0, validation_pending=True)
    progress.reset_meters()
    assert (progress.best, progress.unique, progress.elapsed_s, progress.epoch) == (None, 0, 0.0, 3)
    progress.reset_position()
    assert (progress.epoch, progress.updates_in_epoch, progress.validation_pending) == (1, 0, False)


@pytest.mark.parametrize(
    ("former", "name", "value"),
    [
        ("unique_tokens", "unique", 10),
        ("processed_tokens", "processed", 40),
        ("rounded_off", "last_finished_update", 7),
        ("pending", "validation_pending", True),
    ],
)
def test_fields_are_read_under_their_former_names(former: str, name: str, value: Any) -> None:
    progress = replace(Progress(), **{name: value})
    state = progress.extra_state()
    state["progress"][former] = state["progress"].pop(name)
    assert Progress.from_extra_state(state) == progress
