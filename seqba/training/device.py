"""Where a run computes, and how batches get there."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

Batch = TypeVar("Batch")


def choose_device(*, cpu: bool) -> torch.device:
    """The GPU where there is one and `cpu` is False, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() and not cpu else "cpu")


def to_device(batch: Batch, device: torch.device) -> Batch:
    """A flat dataclass of tensors with every tensor on `device`; the batch itself when it is there already."""
    fields = {field.name: getattr(batch, field.name) for field in dataclasses.fields(cast(Any, batch)) if field.init}
    moved = {
        name: value.to(device, non_blocking=True)
        for name, value in fields.items()
        if isinstance(value, Tensor) and value.device.type != device.type
    }
    return cast(Batch, dataclasses.replace(cast(Any, batch), **moved)) if moved else batch
