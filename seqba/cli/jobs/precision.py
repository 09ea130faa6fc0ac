"""Weights of models that don't train, in 16 bits."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from seqba.cli.output import warn_on_stderr


def cast_weights(models: Iterable[nn.Module], device: torch.device, *, fp16: bool, bf16: bool) -> None:
    """Casts the weights of models in place: to float16 on a GPU, or to bfloat16.

    Args:
        models: on the device.
        device: that they compute on.
        fp16: float16, which is bfloat16 on a CPU.
        bf16: bfloat16; with neither of the two the weights stay as they are.
    """
    if fp16 and device.type == "cpu":
        warn_on_stderr("--fp16 is bfloat16 on a CPU")
    if not fp16 and not bf16:
        return
    dtype = torch.bfloat16 if bf16 or device.type == "cpu" else torch.float16
    for model in models:
        model.to(dtype)
