from __future__ import annotations

import pytest
import torch
from torch import nn

from seqba.training.optimizers import build_optimizer, build_trigger
from seqba.training.options import OptimisationOptions


def test_two_steps_of_adam_by_hand() -> None:
    weight = nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    options = OptimisationOptions(adam_betas=(0.9, 0.98), adam_eps=1e-9, weight_decay=0.1)
    optimizer = build_optimizer([weight], options)
    value, first, second = 1.0, 0.0, 0.0
    for step, (gradient, lr) in enumerate([(0.5, 0.01), (-0.25, 0.02)], start=1):
        weight.grad = torch.tensor([gradient], dtype=torch.float64)
        optimizer.param_groups[0]["lr"] = lr
        optimizer.step()
        first, second = 0.9 * first + 0.1 * gradient, 0.98 * second + 0.02 * gradient**2
        value *= 1 - lr * 0.1  # decoupled: the decay never enters the averages
        value -= lr * (first / (1 - 0.9**step)) / ((second / (1 - 0.98**step)) ** 0.5 + 1e-9)
        assert weight.item() == pytest.approx(value, rel=1e-10)


def test_the_step_is_fused() -> None:
    optimizer = build_optimizer([nn.Parameter(torch.zeros(2))], OptimisationOptions())
    assert optimizer.param_groups[0]["fused"]


def test_two_steps_of_sgd_by_hand() -> None:
    weight = nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    optimizer = build_optimizer([weight], OptimisationOptions(optimizer="sgd", momentum=0.9, weight_decay=0.1))
    value, velocity = 1.0, 0.0
    for gradient, lr in [(0.5, 0.01), (-0.25, 0.02)]:
        weight.grad = torch.tensor([gradient], dtype=torch.float64)
        optimizer.param_groups[0]["lr"] = lr
        optimizer.step()
        velocity = 0.9 * velocity + gradient + 0.1 * value  # not decoupled: the decay is part of the gradient
        value -= lr * velocity
        assert weight.item() == pytest.approx(value, rel=1e-10)
    assert optimizer.param_groups[0]["fused"]


def test_only_nt_asgd_has_a_trigger() -> None:
    assert build_trigger(OptimisationOptions()) is None
    trigger = build_trigger(OptimisationOptions(optimizer="nt_asgd", nonmono=3))
    assert trigger is not None
    assert trigger.patience == 3
