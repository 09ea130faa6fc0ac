"""Backwards that have no derivative: quick where none is asked for, refused where one is."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from seqba.nn.kernels.backwards import once_differentiable


class Square(torch.autograd.Function):
    """x² whose backward torch can't differentiate as it should: x comes without its graph."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.x = x.detach()
        return x * x

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return 2 * ctx.x * grads[0]


def test_a_gradient_is_what_the_backward_returns() -> None:
    x = torch.tensor([3.0], requires_grad=True)
    Square.apply(x).backward()
    assert torch.equal(x.grad, torch.tensor([6.0]))


def test_a_gradient_of_a_gradient_is_refused() -> None:
    x = torch.tensor([3.0], requires_grad=True)
    (slope,) = torch.autograd.grad(Square.apply(x).square(), x, create_graph=True)
    assert torch.equal(slope, torch.tensor([108.0]))
    with pytest.raises(RuntimeError, match="once_differentiable"):
        slope.backward()
