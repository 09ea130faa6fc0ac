"""Examples of a task one by one, with those that they are compared to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from seqba.runtime.devices import to_device
from seqba.statistics import Related
from seqba.statistics.gradients import LossFunction
from seqba.tasks import Task

LOOKED_THROUGH = 100
"""Pictures that are looked through for one of the same class and one of another."""


class SingleExamples(Sequence[Any]):
    """Examples of a task in batches of one row, in an order drawn by a seed.

    Args:
        task: opened with batches of one row.
        device: where they go when they are asked for.
        seed: of the order.
    """

    def __init__(self, task: Task[Any], device: torch.device, seed: int) -> None:
        self._batches = task.epoch(1, 1)
        self._order = torch.randperm(len(self._batches), generator=torch.Generator().manual_seed(seed)).tolist()
        self._device = device

    def __len__(self) -> int:
        """Number of examples."""
        return len(self._order)

    def __getitem__(self, number: Any) -> Any:
        """Example `number` of the order, on the device."""
        return to_device(self._batches[self._order[number]], self._device)

    def related(self, pairs: int) -> Iterator[Related[Any]]:
        """The first so many examples, each with others that it is compared to.

        Of images these are one of its class and one of another, where `LOOKED_THROUGH` pictures hold them; of text, the
        next example.
        """
        for number in range(pairs):
            example = self[number]
            label = getattr(example, "labels", None)
            if label is None:
                yield Related(example, (("other_example", self[(number + 1) % len(self)]),))
                continue
            others: dict[str, Any] = {}
            for step in range(LOOKED_THROUGH):
                place = (pairs + 10 * number + step) % len(self)
                other = self[place]
                kind = "same_class" if bool(other.labels == label) else "other_class"
                if place != number:
                    others.setdefault(kind, other)
                if len(others) == 2:
                    break
            yield Related(example, tuple(sorted(others.items(), reverse=True)))


def stateless_loss(task: Task[Any]) -> LossFunction[Any]:
    """The task's loss of a single example, whose text begins without a state and leaves none."""

    def loss(model: nn.Module, batch: Any) -> Any:
        try:
            return task.loss(model, batch)
        finally:
            if task.carried is not None:
                task.carried.discard()

    return loss
