"""Networks that fork, and their batches, for several files of tests."""

from __future__ import annotations

from typing import Any

import torch
from forked_network import ForkedNetwork
from small_network import make_batch
from torch import Tensor

PLANS: list[Any] = ["looped", "auto", 2, 3, 4]


def make_network(*args: Any, dtype: torch.dtype = torch.float64, **options: Any) -> ForkedNetwork:
    torch.manual_seed(1)
    return ForkedNetwork(*args, **options).to(dtype)


def batch_of(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    return make_batch(dtype=dtype)
