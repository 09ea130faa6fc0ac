from __future__ import annotations

import pytest

from seqba.errors import UserError
from seqba.training.arms import derive_grid
from seqba.training.options import GridOptions


@pytest.mark.parametrize(
    ("arm", "shards", "copies"), [("baseline", (2, 3), 1), ("fixed-samples", (8, 12), 1), ("ba", (2, 3), 4)]
)
def test_arms_derive_the_papers_columns(arm: str, shards: tuple[int, ...], copies: int) -> None:
    grid = derive_grid(GridOptions(arm=arm, copies=4, update_freq=(2, 3)))
    assert (grid.shards_per_epoch, grid.copies) == (shards, copies)


def test_the_last_number_of_shards_stays() -> None:
    grid = derive_grid(GridOptions(update_freq=(2, 3)))
    assert [grid.shards(epoch) for epoch in (1, 2, 3, 9)] == [2, 3, 3, 3]


@pytest.mark.parametrize("plan", ["sideways", "0", "-1", ""])
def test_a_plan_that_is_none_is_refused(plan: str) -> None:
    with pytest.raises(UserError, match="--plan is"):
        derive_grid(GridOptions(plan=plan))
