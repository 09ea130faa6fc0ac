"""What the merged gradient refuses, and what it warns of."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from small_network import Network, make_batch, mean_loss, summed_loss
from torch import Tensor, nn

import seqba
from seqba.core import Plan


def test_a_forgotten_update_number_is_told_of(network: Network) -> None:
    batch = make_batch()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    seqba.merged_gradient(network, batch, mean_loss, copies=2)
    optimizer.zero_grad()
    seqba.merged_gradient(network, batch, mean_loss, copies=2)  # the same weights: somebody compares, and may
    optimizer.step()
    with pytest.warns(UserWarning, match="pass update=") as warned:
        seqba.merged_gradient(network, batch, mean_loss, copies=2)
    assert [warning.filename for warning in warned] == [__file__]  # where somebody can do something about it
    optimizer.step()
    optimizer.zero_grad()
    seqba.merged_gradient(network, batch, mean_loss, copies=2, update=1)
    optimizer.step()
    optimizer.zero_grad()
    seqba.grid_gradient(network, [batch], summed_loss, copies=2, weight=12, update=2)
    optimizer.step()
    with pytest.warns(UserWarning, match="pass update=") as warned:
        seqba.grid_gradient(network, [batch], summed_loss, copies=2, weight=12, update=2)
    assert [warning.filename for warning in warned] == [__file__]


def test_a_forgotten_micro_batch_number_is_told_of(network: Network) -> None:
    batch = make_batch()
    seqba.merged_gradient(network, batch, mean_loss, copies=2, update=1)
    with pytest.warns(UserWarning, match="micro_batch=0, 1, …") as warned:
        seqba.merged_gradient(network, batch, mean_loss, copies=2, update=1)
    assert [warning.filename for warning in warned] == [__file__]
    network.zero_grad(set_to_none=False)
    seqba.merged_gradient(network, batch, mean_loss, copies=2, update=1)
    seqba.merged_gradient(network, batch, mean_loss, copies=2, update=1, micro_batch=1)


@pytest.mark.parametrize("plan", [3, "auto"])
def test_a_sum_that_is_taken_for_a_mean_is_told_of_where_passes_differ_in_copies(network: Network, plan: Any) -> None:
    """The CTC models of Hugging Face return one by default."""

    def sum_alone(model: nn.Module, batch: Any) -> Tensor:
        return summed_loss(model, batch)[0]

    def update(model: Network, loss_fn: Any, number: int) -> None:
        chosen = Plan(is_auto=True) if plan == "auto" else plan
        seqba.merged_gradient(model, make_batch(), loss_fn, copies=4, plan=chosen, update=number)

    other = Network()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        update(other, mean_loss, 1)
        update(other, summed_loss, 2)
    with pytest.warns(UserWarning, match=r"3 copies in one pass is about 3 times that of 1.*\(sum, weight\)") as warned:
        update(network, sum_alone, 1)
    assert [warning.filename for warning in warned] == [__file__]


def test_a_backward_that_makes_no_gradient_is_told_of(network: Network) -> None:
    scaler = torch.amp.GradScaler("cpu")
    for backward in (scaler.scale, lambda loss: None):
        with pytest.raises(ValueError, match="backward= was called with the loss and left no gradient"):
            seqba.merged_gradient(network, make_batch(), mean_loss, copies=2, update=1, backward=backward)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"copies": 0}, "copies is 0; it must be at least 1"),
        ({"copies": 2, "plan": "sideways"}, "plan is 'sideways'; choose auto, stacked, looped"),
        ({"copies": 2, "plan": 0}, "plan is 0; choose"),
    ],
)
def test_impossible_arguments_are_refused(network: Network, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        seqba.merged_gradient(network, make_batch(), mean_loss, **options)


@pytest.mark.parametrize(
    ("loss_fn", "message"),
    [
        (lambda model, batch: model(batch[0]), r"must return a 0-dim tensor.*not \(18, 5\)"),
        (lambda model, batch: (model(batch[0]).sum(), 0), "weight 0.0; it must be positive"),
    ],
)
def test_impossible_losses_are_refused(network: Network, loss_fn: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        seqba.merged_gradient(network, make_batch(), loss_fn, copies=3, plan="stacked")


def test_a_grid_whose_weight_does_not_add_up_is_refused(network: Network) -> None:
    with pytest.raises(ValueError, match="was given as 7, but the passes add up to 12"):
        seqba.grid_gradient(network, [make_batch()], summed_loss, copies=2, weight=7)
