"""A small network whose copies begin inside it, and what tests do with it."""

from __future__ import annotations

from typing import Any

import torch
from small_network import gradient_of
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import seqba


class ForkedNetwork(nn.Module):
    """Noise below and above the fork, by the same module on both sides too.

    Args:
        dropout: of all sites.
        way: how it forks: "function", "value" (what is below is computed in every pass), or "none".
        ordinary: torch's own dropout in place of keyed ones.
        checkpoints: whether both sides are recomputed in the backward.
    """

    def __init__(
        self, dropout: float = 0.3, *, way: str = "function", ordinary: bool = False, checkpoints: bool = False
    ) -> None:
        super().__init__()
        self.way = way
        self.checkpoints = checkpoints
        self.times_below = 0
        self.enter = nn.Linear(7, 16)
        self.hidden = nn.Linear(16, 16)
        self.leave = nn.Linear(16, 5)
        make = nn.Dropout if ordinary else seqba.nn.Dropout
        self.below_dropout, self.both_dropout, self.above_dropout = (make(dropout) for _ in range(3))

    def below(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """A value of a tensor that is trained and one that isn't."""
        hidden = self.both_dropout(torch.tanh(self.enter(self.below_dropout(x)))) + 0.1
        return hidden, x[:, :1] > 0

    def above(self, hidden: Tensor, is_positive: Tensor) -> Tensor:
        hidden = self.both_dropout(torch.tanh(self.hidden(hidden))) * (1 + is_positive)
        return self.leave(self.above_dropout(hidden))

    def forward(self, x: Tensor) -> Tensor:
        if self.way == "none":
            return self.above(*self.below(x))
        is_function = self.way == "function"
        value = seqba.fork(self._count_and_run, x) if is_function else seqba.fork(self._count_and_run(x))
        value[0].mul_(1.5)  # what a fork gives may be overwritten
        return self._run(self.above, *value)

    def _count_and_run(self, x: Tensor) -> Any:
        self.times_below += 1
        return self._run(self.below, x)

    def _run(self, part: Any, *inputs: Tensor) -> Any:
        return checkpoint(part, *inputs, use_reentrant=False) if self.checkpoints else part(*inputs)


def forked_loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, int]:
    """Summed cross-entropy over the rows of the copies, and their number."""
    logits, target = model(batch[0]), seqba.per_copy(batch[1])
    return nn.functional.cross_entropy(logits, target, reduction="sum"), len(target)


def forked_gradient(model: nn.Module, batch: tuple[Tensor, Tensor], **options: Any) -> Tensor:
    """The merged gradient of an update that forks."""
    model.zero_grad()
    seqba.merged_gradient(model, batch, forked_loss, **{"copies": 5, "update": 3, "forked": True, **options})
    return gradient_of(model)
