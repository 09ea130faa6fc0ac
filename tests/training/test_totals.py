from __future__ import annotations

import pytest
import torch

from seqba.training.totals import Totals

NAMES = ("loss", "weight", "count", "extras", "stopped", "unread", "ppl")


def test_the_loss_is_divided_by_weights_and_the_other_sums_by_units() -> None:
    totals = Totals()
    totals.add(torch.tensor(6.0), 2.0, 4, {"nll": torch.tensor(2.0)})
    totals.add(3.0, 1.0, 6, {"nll": 1.0, "top1": 5.0})
    assert (totals.mean_loss, totals.means) == (3.0, {"nll": 0.3, "top1": 0.5})
    assert totals.metrics("images") == {"loss": 3.0, "nll": 0.3, "top1": 50.0}


@pytest.mark.parametrize("name", NAMES)
def test_a_further_sum_of_any_name_is_kept_apart(name: str) -> None:
    plain, named = Totals(), Totals()
    plain.add(6.0, 2.0, 4, {"nll": 2.0})
    named.add(6.0, 2.0, 4, {"nll": 2.0, name: 1000.0})
    expected = plain.metrics("tokens")
    metrics = named.metrics("tokens")
    assert {key: metrics[key] for key in expected} == expected
    assert [value for key, value in metrics.items() if key not in expected] == [250.0]


def test_sums_of_ranks_are_those_of_all_their_batches() -> None:
    parts = [Totals(6.0, 2.0, 4.0, {"nll": 2.0}), Totals(), Totals(3.0, 1.0, 6.0, {"nll": 1.0, "count": 5.0})]
    totals = Totals()
    totals.add_all(parts)
    assert totals == Totals(9.0, 3.0, 10.0, {"nll": 3.0, "count": 5.0})
    assert parts[0].extras == {"nll": 2.0}
