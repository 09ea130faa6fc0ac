"""What the ranks of a run agree on."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from seqba.core import Group


def summed(ranks: Group, numbers: Sequence[float], device: torch.device) -> list[float]:
    """Each number added up over the ranks; the same on all of them. All ranks must call it."""
    told = torch.tensor(numbers, dtype=torch.float64, device=device)
    ranks.add_up([told])
    values: list[float] = told.tolist()
    return values
