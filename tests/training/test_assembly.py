"""What is put together before the first update: all that can be known to fail fails here."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from small_runs import make_loop, make_options
from sums import Rows, SquaresTask

from seqba.errors import UserError


class WithoutSplit(SquaresTask):
    def validation(self, subset: str) -> list[Rows]:
        raise UserError(f"there is no split {subset}")


class ShortText(SquaresTask):
    """A text whose state is carried on, and which can be cut into two micro-batches at most."""

    carried: Any = SimpleNamespace()

    def epoch(self, epoch: int, micro_batches_per_update: int) -> list[Rows]:
        if micro_batches_per_update > 2:
            raise UserError(f"the text is too short for {micro_batches_per_update} micro-batches")
        return super().epoch(epoch, micro_batches_per_update)


def test_a_missing_split_is_told_of_before_any_update(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no split valid"):
        make_loop(make_options(tmp_path), WithoutSplit())


def test_every_number_of_micro_batches_is_tried_on_running_text(tmp_path: Path) -> None:
    make_loop(make_options(tmp_path, update_freq=(2, 1)), ShortText())
    with pytest.raises(UserError, match="too short for 3 micro-batches"):
        make_loop(make_options(tmp_path, update_freq=(2, 1, 3)), ShortText())


@pytest.mark.parametrize(("arm", "has_own"), [("baseline", True), ("ba", True), ("fixed-samples", False)])
def test_options_count_the_baselines_epochs(arm: str, has_own: bool, tmp_path: Path) -> None:
    loop = make_loop(make_options(tmp_path, arm=arm))
    assert (loop.epochs is None) == has_own
    if loop.epochs is not None:  # 7 batches, 2 to an update of the baseline
        assert [loop.epochs.done(updates) for updates in (3, 4, 8)] == [0, 1, 2]


def test_the_validation_splits_are_those_that_were_opened(tmp_path: Path) -> None:
    task = SquaresTask()
    opened: list[str] = []
    original = task.validation
    task.validation = lambda subset: opened.append(subset) or original(subset)  # type: ignore[method-assign, func-returns-value]
    loop = make_loop(make_options(tmp_path, max_update=8), task)
    assert list(loop.splits) == opened == ["valid"]
