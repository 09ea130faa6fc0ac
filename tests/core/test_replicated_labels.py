"""A wrong `replicated=` shows by the labels of the batch, and is told once for a model."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from small_network import Network, make_batch, mean_loss

import seqba

COPIES = 3
LABELS = torch.tensor([4, 0, 2, 1, 3, 0])


def batch_of(labels: torch.Tensor) -> Any:
    return make_batch(rows=len(labels))[0], labels


def told(model: Network, batch: Any, **options: Any) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        seqba.merged_gradient(model, batch, mean_loss, copies=COPIES, **options)
    return [str(warning.message) for warning in caught]


@pytest.mark.parametrize("plan", ["stacked", "looped"])
def test_a_plain_batch_that_is_said_to_hold_copies_is_told(network: Network, plan: str) -> None:
    labels = torch.cat([LABELS, LABELS.flip(0), LABELS.roll(1)])
    assert "leave replicated out" in told(network, batch_of(labels), replicated=True, plan=plan)[0]
    assert not told(network, batch_of(labels), replicated=True, plan=plan, update=1)  # once


def test_a_batch_of_copies_that_is_not_said_to_hold_them_is_told(network: Network) -> None:
    assert "pass replicated=True" in told(network, batch_of(LABELS.repeat(COPIES)))[0]


@pytest.mark.parametrize(
    ("labels", "replicated"),
    [
        (LABELS.repeat(COPIES), True),
        (torch.cat([LABELS, LABELS.flip(0), LABELS]), False),
        (torch.tensor([1, 0, 0, 0, 1, 1]), True),  # too few to tell
        (torch.tensor([1, 0, 1, 0, 1, 0]), False),
        (torch.arange(7) % 5, False),  # rows that are no multiple
        (torch.arange(5).repeat(COPIES), False),  # classes in turn, as of learning from few examples
        (torch.tensor([3, 1, 4, 0]).repeat(2 * COPIES), False),
    ],
)
def test_what_is_right_or_cannot_be_told_is_no_warning(
    network: Network, labels: torch.Tensor, *, replicated: bool
) -> None:
    assert not told(network, batch_of(labels), replicated=replicated)


def test_other_whole_numbers_may_differ_from_copy_to_copy(network: Network) -> None:
    """Lengths of a text whose words are cut anew in each copy, beside its label."""
    x, labels = batch_of(LABELS.repeat(COPIES))
    batch = {"x": x, "label": labels, "length": torch.arange(len(labels), dtype=torch.int32)}

    def loss_fn(model: Network, batch: Any) -> torch.Tensor:
        return mean_loss(model, (batch["x"], batch["label"]))

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        seqba.merged_gradient(network, batch, loss_fn, copies=COPIES, replicated=True)


def test_lengths_of_texts_are_no_labels(network: Network) -> None:
    """The words of each copy are cut anew, and nothing else has a number a row."""
    x, labels = batch_of(LABELS.repeat(COPIES))
    batch = {"x": x, "tokens": labels[:, None].repeat(1, 2), "length": torch.arange(len(labels))}

    def loss_fn(model: Network, batch: Any) -> torch.Tensor:
        return mean_loss(model, (batch["x"], batch["tokens"][:, 0]))

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        seqba.merged_gradient(network, batch, loss_fn, copies=COPIES, replicated=True)
