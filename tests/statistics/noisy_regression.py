"""A model whose variance split is known: linear regression through dropout, at the weights 0.

The gradient of ½(w·x̃ − y)² at w = 0 is −y·x̃. With y = 1, x ~ N(means, 1) in D dimensions and x̃ = x∘mask/(1 − p):

    |G|² = ‖means‖²,   S_b = D,   S_w = p/(1 − p)·(D + ‖means‖²),   so that ρ(T₁, T₂) = 1 − p
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

import seqba

WIDTH = 600
DROPOUT = 0.25
MEANS = torch.tensor([0.5, -0.5]).repeat(WIDTH // 2)
Row = tuple[Tensor, Tensor]


class NoisyRegression(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(WIDTH))
        self.dropout = seqba.nn.Dropout(DROPOUT)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(x) @ self.weight


def examples(count: int, seed: int = 0) -> list[Row]:
    generator = torch.Generator().manual_seed(seed)
    return [(MEANS + torch.randn(1, WIDTH, generator=generator), torch.ones(1)) for _ in range(count)]


def loss(model: nn.Module, batch: Row) -> tuple[Tensor, int]:
    return 0.5 * (model(batch[0]) - batch[1]).square().sum(), len(batch[1])
