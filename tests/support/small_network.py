"""A small network with keyed noise, and what the tests of the core do with it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import seqba


class Network(nn.Module):
    """Two keyed sites and a module that draws twice: enough to tell sites and calls apart."""

    def __init__(self, dropout: float = 0.3) -> None:
        super().__init__()
        self.enter = nn.Linear(7, 16)
        self.hidden = nn.Linear(16, 16)
        self.leave = nn.Linear(16, 5)
        self.dropout = seqba.nn.Dropout(dropout)
        self.locked = seqba.nn.LockedDropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = self.dropout(torch.tanh(self.enter(x)))
        x = self.locked(x.unsqueeze(1)).squeeze(1)
        return self.leave(self.dropout(torch.tanh(self.hidden(x))))


def mean_loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


def summed_loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, int]:
    return nn.functional.cross_entropy(model(batch[0]), batch[1], reduction="sum"), len(batch[1])


def make_batch(rows: int = 6, seed: int = 0, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, 7, generator=generator, dtype=torch.float64).to(dtype)
    return x, torch.randint(0, 5, (rows,), generator=generator)


def gradient_of(model: nn.Module) -> Tensor:
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None])


def relative_error(value: Tensor, reference: Tensor) -> float:
    return ((value - reference).norm() / reference.norm()).item()
