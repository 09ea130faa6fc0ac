"""Owner of a draw: the innermost module of the model that is being computed, read from the frames of the call.

Hooks and wrapped forwards wouldn't do: a layer that is checkpointed inside its model's forward is recomputed without
them. The frames are there wherever the layer runs, on a backward's own threads too.
"""

from __future__ import annotations

import sys
from collections.abc import Container, Iterator
from types import FrameType

import torch
from torch import nn

# Beyond them is who asked for the gradient, not who is being recomputed for it.
_BOUNDARIES = frozenset({torch.autograd.backward.__code__, torch.autograd.grad.__code__})


class _Outside:
    """Stands for code that belongs to no module of the model: a loss function, say."""


OUTSIDE = _Outside()


def find_owner(names: Container[int]) -> object:
    """The module whose code is calling: the first argument of the innermost function that has one of the model's there.

    That is `self` in a module's methods, and whatever functions call the module that they get as their first argument
    (`module`, `model`). A function inside a method, which has none, is known by the `self` that it refers to.

    Args:
        names: `id`s of the modules of the model.

    Returns:
        The module, or `OUTSIDE` where no function has one.
    """
    return next(_owners(names), OUTSIDE)


def is_time_first(names: Container[int]) -> bool:
    """Whether the innermost layer that says so has time on dimension 0 and its rows on 1, as torch's own do by default.

    A layer says so by its `batch_first`, or its attention's. The weights of `nn.MultiheadAttention` itself have their
    rows first whatever it says.
    """
    for module in _owners(names):
        said = getattr(module, "batch_first", getattr(getattr(module, "self_attn", None), "batch_first", None))
        if isinstance(said, bool):
            return not said and not isinstance(module, nn.MultiheadAttention)
    return False


def _owners(names: Container[int]) -> Iterator[object]:
    """Modules whose code is on the stack, the innermost first."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code not in _BOUNDARIES:
        code = frame.f_code
        first_argument = code.co_varnames[: min(code.co_argcount, 1)]
        for variable in (*first_argument, "self") if "self" in code.co_freevars else first_argument:
            candidate = frame.f_locals.get(variable)
            if id(candidate) in names:
                yield candidate
        frame = frame.f_back
