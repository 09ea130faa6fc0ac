"""Gradients of keyed models."""

from __future__ import annotations

from typing import Any

from foreign_models import gradient, make_rows, square_loss
from torch import Tensor, nn

import seqba

COPIES = 4


F = nn.functional


def keyed_gradient(model: nn.Module, loss_fn: Any = square_loss, batch: Any = None, **options: Any) -> Tensor:
    model.zero_grad()
    rows = make_rows() if batch is None else batch
    seqba.merged_gradient(model, rows, loss_fn, copies=COPIES, update=3, keyed=True, **options)
    return gradient(model)
