"""An update that fails leaves a sparse gradient as it was, and a retry begins with that."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import torch
from small_network import mean_loss, relative_error
from torch import Tensor, nn

import seqba
from seqba.core import Plan


class Words(nn.Module):
    """A table of words whose gradient is sparse."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.dropout = nn.Embedding(9, 5, sparse=True), seqba.nn.Dropout(0.3)

    def forward(self, words: Tensor) -> Tensor:
        return self.dropout(self.words(words)).mean(1)


def sparse_gradient(*failures: Exception) -> tuple[Tensor, list[Tensor]]:
    """That of two updates added up, whose second one fails so in its second pass; and those of each update."""
    torch.manual_seed(0)
    model, batch = Words(), (torch.randint(9, (6, 4)), torch.randint(5, (6,)))
    losses = iter([None, *failures])

    def loss_fn(model: nn.Module, batch: Any) -> Tensor:
        if error := next(losses, None):
            raise error
        return mean_loss(model, batch)

    def updated(update: int, loss_fn: Any = mean_loss) -> Tensor:
        plan = Plan(copies_per_pass=2, is_auto=True)
        with suppress(ValueError):
            seqba.merged_gradient(model, batch, loss_fn, copies=4, plan=plan, update=update)
        assert model.words.weight.grad is not None
        return model.words.weight.grad

    before = updated(0)
    assert updated(1, loss_fn) is before
    alone = []
    for update in (0, 1):
        model.zero_grad()
        alone.append(updated(update).to_dense())
    return before.to_dense(), alone


def test_a_sparse_gradient_is_what_it_was() -> None:
    gradient, (first, _) = sparse_gradient(ValueError("bad labels"))
    assert torch.equal(gradient, first)


def test_memory_that_runs_out_leaves_nothing_in_a_sparse_gradient() -> None:
    gradient, alone = sparse_gradient(torch.OutOfMemoryError("no room"))
    assert relative_error(gradient, sum(alone)) < 1e-6
