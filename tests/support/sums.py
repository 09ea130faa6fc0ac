"""The smallest task there is: a vector of weights, rows of numbers, and squares to minimise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from seqba.nn import Dropout
from seqba.tasks import Unit


@dataclass(frozen=True)
class Rows:
    values: Tensor  # (B, 4)
    target: Tensor  # (B,)


class Line(nn.Module):
    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(-1, 1, 4))
        self.dropout = Dropout(dropout)

    def forward(self, values: Tensor) -> Tensor:
        return self.dropout(values) @ self.weight


class SquaresTask:
    """loss = Σ (prediction − target)²; a row counts two tokens, so that tokens and weight can't be mistaken."""

    def __init__(self, batches: int = 7, rows: int = 4) -> None:
        generator = torch.Generator().manual_seed(3)
        self.batches = [
            Rows(torch.randn(rows, 4, generator=generator), torch.randn(rows, generator=generator))
            for _ in range(batches)
        ]

    carried = None
    unit: Unit = "tokens"

    def state(self) -> dict[str, Any]:
        return {"task": "squares"}

    def epoch(self, epoch: int, micro_batches_per_update: int) -> list[Rows]:
        return self.batches[epoch % 3 :] + self.batches[: epoch % 3]

    def validation(self, subset: str) -> list[Rows]:
        return self.batches[:2]

    def loss(self, model: nn.Module, batch: Rows) -> tuple[Tensor, float, Mapping[str, Tensor]]:
        errors = (model(batch.values) - batch.target).square().sum()
        return errors, float(len(batch.target)), {"nll": errors / 2}

    def weight(self, batch: Rows) -> float:
        return float(len(batch.target))

    def count(self, batch: Rows) -> int:
        return 2 * len(batch.target)

    def learning_rate_factor(self, batch: Rows) -> float:
        return 1.0


def poison(batch: Rows, value: float = float("nan")) -> Rows:
    return Rows(batch.values * value, batch.target)
