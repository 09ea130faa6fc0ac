from __future__ import annotations

import dataclasses
from fractions import Fraction

import pytest

from seqba.errors import UserError
from seqba.tasks.options import BatchOptions
from seqba.training.arms import BaselineEpochs, derive_grid
from seqba.training.options import GridOptions


@pytest.mark.parametrize(
    ("arm", "micro_batches", "copies"), [("baseline", (2, 3), 1), ("fixed-samples", (8, 12), 1), ("ba", (2, 3), 4)]
)
def test_arms_derive_the_papers_columns(arm: str, micro_batches: tuple[int, ...], copies: int) -> None:
    grid = derive_grid(GridOptions(arm=arm, copies=4, update_freq=(2, 3)))
    assert (grid.micro_batches_per_epoch, grid.copies.most) == (micro_batches, copies)


def test_the_last_number_of_micro_batches_stays() -> None:
    grid = derive_grid(GridOptions(update_freq=(2, 3)))
    assert [grid.micro_batches(epoch) for epoch in (1, 2, 3, 9)] == [2, 3, 3, 3]


@pytest.mark.parametrize(
    ("arm", "update_freq", "micro_batches", "copies", "scale"),
    [
        ("large-batch", (2, 3), (2, 3), 1, 4),
        ("fixed-rows", (4, 8), (1, 2), 4, 1),
        ("fixed-rows", (4, 6), (4, 6), 4, Fraction(1, 4)),
    ],
)
def test_the_further_arms(
    arm: str, update_freq: tuple[int, ...], micro_batches: tuple[int, ...], copies: int, scale: Fraction
) -> None:
    grid = derive_grid(GridOptions(arm=arm, copies=4, update_freq=update_freq))
    assert (grid.micro_batches_per_epoch, grid.copies.most, grid.batch_scale) == (micro_batches, copies, scale)


@pytest.mark.parametrize("arm", ["baseline", "fixed-samples", "ba", "large-batch", "fixed-rows"])
def test_with_one_copy_all_arms_are_the_baseline(arm: str) -> None:
    grid = derive_grid(GridOptions(arm=arm, update_freq=(2, 3)))
    assert grid == derive_grid(GridOptions(arm="baseline", update_freq=(2, 3)))


def test_only_training_batches_change_their_size() -> None:
    given = BatchOptions(max_tokens=400, batch_size=20, batch_size_valid=7)
    large = derive_grid(GridOptions(arm="large-batch", copies=4)).resized(given)
    assert large == dataclasses.replace(given, max_tokens=1600, batch_size=80, max_tokens_valid=400)
    small = derive_grid(GridOptions(arm="fixed-rows", copies=4)).resized(given)
    assert small == dataclasses.replace(given, max_tokens=100, batch_size=5, max_tokens_valid=400)
    assert derive_grid(GridOptions(copies=4)).resized(given) is given


def test_a_size_that_copies_do_not_divide_is_refused() -> None:
    grid = derive_grid(GridOptions(arm="fixed-rows", copies=3, update_freq=(2,)))
    with pytest.raises(UserError, match="--copies 3 divides neither --update-freq 2 nor --max-tokens 400"):
        grid.resized(BatchOptions(max_tokens=400))


def test_epochs_of_the_baseline_end_where_theirs_do() -> None:
    asked: list[int] = []

    def length(epoch: int) -> int:
        asked.append(epoch)
        return 3 + epoch % 2

    epochs = BaselineEpochs(length)  # ends after 4, 7, 11, … updates
    assert [epochs.done(updates) for updates in (8, 0, 3, 4, 6, 7, 10, 11)] == [2, 0, 0, 1, 1, 2, 2, 3]
    assert [updates for updates in range(12) if epochs.is_end(updates)] == [4, 7, 11]
    assert asked == [1, 2, 3, 4]
