"""A model and all generators as they were, whatever is tried in between."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from seqba.modules.gradients import GradientsBefore
from seqba.modules.update_hooks import finish_update


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Puts back gradients, buffers, training modes and the states of all generators (torch's, Python's, NumPy's).

    Inside, gradients are none at first. What modules keep in attributes of Python isn't put back.
    """
    modes = [(module, module.training) for module in model.modules()]
    buffers = [
        (module, name, buffer, buffer.detach().clone())
        for module in model.modules()
        for name, buffer in module.named_buffers(recurse=False)
    ]
    gradients = GradientsBefore(model, set_aside=True)
    numpy: Any = sys.modules.get("numpy")
    own = random.getstate(), None if numpy is None else numpy.random.get_state()
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            finish_update(model, keep=False)
            gradients.restore()
            with torch.no_grad():
                for module, name, buffer, values in buffers:
                    buffer.copy_(values)
                    setattr(module, name, buffer)
            for module, mode in modes:
                module.training = mode
            random.setstate(own[0])
            if numpy is not None:
                numpy.random.set_state(own[1])


def seed_everything(seed: int) -> None:
    """Seeds the generators that a model may draw from unasked: torch's, Python's, NumPy's if it is loaded."""
    torch.manual_seed(seed)
    random.seed(seed)
    numpy: Any = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed(seed)
