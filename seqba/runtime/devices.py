"""Where a run computes, and how batches get there."""

from __future__ import annotations

import dataclasses
import os
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from seqba.runtime.memory import keep_freed_memory

Batch = TypeVar("Batch")


def prepare_device(*, cpu: bool) -> torch.device:
    """The device that a command computes on (`choose_device`); a CPU's memory is kept from one update to the next."""
    device = choose_device(cpu=cpu)
    if device.type == "cpu":
        keep_freed_memory()
    return device


def choose_device(*, cpu: bool) -> torch.device:
    """The GPU where there is one and `cpu` is False, else the CPU; of several GPUs the one that torchrun names.

    cuDNN's LSTM multiplies float32 in TF32 by default and every other product of ours doesn't: a layer would come out
    otherwise when its copies are stacked than when they are looped. Here both follow torch's setting for products.

    cuDNN's attention, which torch prefers on Hopper GPUs, is compiled for each shape, and batches of text have hundreds
    of them: it takes seconds at the beginning and more at each new shape. torch's own kernels take all shapes.
    """
    if cpu or not torch.cuda.is_available():
        return torch.device("cpu")
    torch.backends.cuda.enable_cudnn_sdp(False)
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    torch.cuda.set_device(device)
    return device


def to_device(batch: Batch, device: torch.device) -> Batch:
    """A flat dataclass of tensors with every tensor on `device`; the batch itself when it is there already.

    A GPU copies from memory that can't be paged out, while the host goes on.
    """
    away = {name: tensor for name, tensor in _tensors(batch).items() if tensor.device.type != device.type}
    if device.type == "cuda":
        away = {name: tensor.pin_memory() for name, tensor in away.items()}
    moved = {name: tensor.to(device, non_blocking=True) for name, tensor in away.items()}
    return cast(Batch, dataclasses.replace(cast(Any, batch), **moved)) if moved else batch


def in_own_memory(batch: Batch) -> Batch:
    """A flat dataclass of tensors, copied: to pickle a view is to pickle all of what it is a view of."""
    copied = {name: tensor.clone() for name, tensor in _tensors(batch).items()}
    return cast(Batch, dataclasses.replace(cast(Any, batch), **copied))


def _tensors(batch: Any) -> dict[str, Tensor]:
    fields = {field.name: getattr(batch, field.name) for field in dataclasses.fields(batch) if field.init}
    return {name: value for name, value in fields.items() if isinstance(value, Tensor)}
