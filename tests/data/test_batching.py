"""Token-budget batches: fairseq's greedy rule, every row once, an order that is a function of (seed, epoch)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from seqba.data.batching import Batches, fitting, plan_batches, plan_epoch
from seqba.errors import UserError

Sizes = npt.NDArray[np.int64]


def slow_batches(
    sizes: list[int], order: list[int], max_tokens: int | None, max_rows: int | None, multiple: int
) -> list[list[int]]:
    """fairseq's rule row by row: grow while it fits, cut to a multiple, let the rest begin the next batch."""

    def fits(rows: list[int]) -> bool:
        if max_rows is not None and len(rows) > max_rows:
            return False
        return max_tokens is None or len(rows) * max(sizes[row] for row in rows) <= max_tokens

    batches, waiting = [], list(order)
    while waiting:
        batch = [waiting[0]]
        while len(batch) < len(waiting) and fits([*batch, waiting[len(batch)]]):
            batch.append(waiting[len(batch)])
        if len(batch) > multiple:
            batch = batch[: len(batch) // multiple * multiple]
        batches.append(batch)
        waiting = waiting[len(batch) :]
    return batches


def as_lists(batches: Batches) -> list[list[int]]:
    return [batches[number].tolist() for number in range(len(batches))]


def lengths(count: int, seed: int) -> tuple[Sizes, Sizes]:
    random = np.random.default_rng(seed)
    source = np.clip(np.exp(random.normal(2.6, 0.5, count)), 1, 90).astype(np.int64) + 1
    target = np.clip(source * np.exp(random.normal(0, 0.2, count)), 1, 90).astype(np.int64) + 1
    return source, target


def test_a_plan_worked_by_hand() -> None:
    source = np.array([3, 3, 2, 5, 1, 1, 1, 1, 1])
    target = np.array([3, 2, 3, 1, 1, 1, 1, 1, 6])
    order = np.arange(9)
    # Budget 9: three rows of longest side 3; then [5] alone, since two rows of 5 are 10; then four rows of 1, since
    # with the fifth, of 6, they would be 30.
    plan = plan_batches(source, target, order, max_tokens=9, max_rows=None, multiple=1)
    assert as_lists(plan) == [[0, 1, 2], [3], [4, 5, 6, 7], [8]]
    # In multiples of two the third row moves on; with the row of 5 it would be 10, so that it stays alone.
    plan = plan_batches(source, target, order, max_tokens=9, max_rows=None, multiple=2)
    assert as_lists(plan) == [[0, 1], [2], [3], [4, 5, 6, 7], [8]]
    plan = plan_batches(source, target, order, max_tokens=None, max_rows=4, multiple=1)
    assert as_lists(plan) == [[0, 1, 2, 3], [4, 5, 6, 7], [8]]


@pytest.mark.parametrize("seed", range(60))
def test_the_plan_is_the_slow_reading_of_fairseqs_rule(seed: int) -> None:
    random = np.random.default_rng(seed)
    source, target = lengths(int(random.integers(1, 200)), seed)
    order = random.permutation(len(source))
    if seed % 2:
        order = order[np.argsort(np.maximum(source, target)[order], kind="stable")]
    max_tokens = None if seed % 5 == 0 else int(random.integers(91, 700))
    max_rows = int(random.integers(1, 40)) if seed % 3 == 0 or max_tokens is None else None
    multiple = int(random.choice([1, 2, 3, 8]))
    plan = plan_batches(source, target, order, max_tokens=max_tokens, max_rows=max_rows, multiple=multiple)
    longest = np.maximum(source, target).tolist()
    assert as_lists(plan) == slow_batches(longest, order.tolist(), max_tokens, max_rows, multiple)


def test_every_row_is_in_exactly_one_batch_within_the_limits() -> None:
    source, target = lengths(5000, seed=3)
    plan = plan_epoch(source, target, seed=1, epoch=1, max_tokens=512, max_rows=48, window=1000)
    assert np.sort(plan.rows).tolist() == list(range(5000))
    for rows in as_lists(plan):
        assert len(rows) * max(source[rows].max(), target[rows].max()) <= 512
        assert len(rows) <= 48
        assert len(rows) < 8 or len(rows) % 8 == 0


def test_chosen_rows_alone_are_planned() -> None:
    source, target = lengths(500, seed=4)
    chosen = np.arange(0, 500, 3)
    plan = plan_epoch(source, target, seed=1, epoch=1, max_tokens=256, rows=chosen)
    assert np.sort(plan.rows).tolist() == chosen.tolist()


def test_the_order_is_a_function_of_seed_and_epoch() -> None:
    source, target = lengths(2000, seed=5)

    def plan(seed: int, epoch: int) -> list[list[int]]:
        return as_lists(plan_epoch(source, target, seed=seed, epoch=epoch, max_tokens=512))

    first = plan(1, 1)
    np.random.seed(0)  # noqa: NPY002 - the global generator must have no say
    assert plan(1, 1) == first
    others = [plan(1, 2), plan(2, 1), plan(2, 2)]
    assert all(other != first for other in others)
    assert others[0] != others[1]  # (1, 2) and (2, 1) are not mixed up
    # Other company as well, not only another order of the same batches.
    assert {frozenset(rows) for rows in first} != {frozenset(rows) for rows in others[0]}


def test_the_order_stays_what_it_is() -> None:
    """A run that was stopped goes on with another version of NumPy, or of this file: the order must not have moved."""
    source, target = np.arange(1, 13), np.arange(12, 0, -1)
    plan = plan_epoch(source, target, seed=1, epoch=2, max_tokens=24, multiple=1)
    assert as_lists(plan) == [[2, 1], [8, 9], [4, 3], [10, 11], [5, 6, 7], [0]]


def test_batches_come_in_random_order_of_length() -> None:
    source, target = lengths(4000, seed=6)
    plan = plan_epoch(source, target, seed=1, epoch=1, max_tokens=512)
    widths = np.array([source[rows].max() for rows in as_lists(plan)])
    assert abs(np.corrcoef(widths, np.arange(len(widths)))[0, 1]) < 0.3


def test_batches_are_fuller_and_less_padded_than_in_fairseqs_order() -> None:
    source, target = lengths(30_000, seed=7)

    def padded_tokens(batches: Batches) -> int:
        return sum(len(rows) * int(source[rows].max() + target[rows].max()) for rows in as_lists(batches))

    ours = plan_epoch(source, target, seed=1, epoch=1, max_tokens=4096)
    order = np.lexsort((target, source))  # fairseq: by source, and by target among equal sources
    theirs = plan_batches(source, target, order, max_tokens=4096, max_rows=None)
    assert len(ours) < 0.95 * len(theirs)
    tokens = int(source.sum() + target.sum())
    assert padded_tokens(ours) - tokens < 0.7 * (padded_tokens(theirs) - tokens)


def test_a_window_sorts_its_own_rows_only() -> None:
    source, target = lengths(4096, seed=8)
    small = plan_epoch(source, target, seed=1, epoch=1, max_tokens=512, window=64)
    large = plan_epoch(source, target, seed=1, epoch=1, max_tokens=512, window=4096)
    assert len(small) > 1.2 * len(large)


def test_sizes_beyond_sixteen_bits_are_still_batched_right() -> None:
    source = np.array([40_000, 5, 70_000, 33_000, 6, 90_000], dtype=np.int32)
    target = source[::-1].copy()
    plan = plan_epoch(source, target, seed=1, epoch=1, max_tokens=100_000, multiple=1)
    assert np.sort(plan.rows).tolist() == list(range(6))
    assert all(len(rows) * max(source[rows].max(), target[rows].max()) <= 100_000 for rows in as_lists(plan))


def test_a_pair_longer_than_the_budget_is_named() -> None:
    source, target = np.array([4, 9, 3]), np.array([4, 4, 12])
    with pytest.raises(UserError, match=r"sentence pair 2 is 12 tokens long, .*--max-tokens 10.*raise --max-tokens"):
        plan_batches(source, target, np.arange(3), max_tokens=10, max_rows=None)
    assert len(plan_batches(source, target, np.arange(2), max_tokens=10, max_rows=None)) == 2


def test_no_rows_give_no_batches() -> None:
    nothing = np.empty(0, dtype=np.int32)
    assert len(plan_epoch(nothing, nothing, seed=1, epoch=1, max_tokens=10)) == 0


def test_batches_are_numbered_from_zero() -> None:
    source, target = lengths(100, seed=9)
    plan = plan_epoch(source, target, seed=1, epoch=1, max_tokens=256)
    for number in (-1, len(plan)):
        with pytest.raises(IndexError, match=f"batch {number} of"):
            plan[number]


def test_what_does_not_fit_the_positions_is_told_apart() -> None:
    keep, dropped = fitting(np.array([3, 5, 2, 4]), np.array([4, 1, 6, 4]), max_source=4, max_target=4)
    assert keep.tolist() == [0, 3]
    assert dropped.tolist() == [1, 2]
