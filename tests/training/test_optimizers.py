from __future__ import annotations

import pytest
import torch
from torch import nn

from seqba.errors import UserError
from seqba.training.nt_asgd import begin_averaging
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


@pytest.mark.parametrize("name", ["sgd", "nt_asgd", "adam"])
def test_biases_and_norms_may_be_left_out_of_the_decay(name: str) -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 2)).double()
    before = {key: value.clone() for key, value in model.named_parameters()}
    options = OptimisationOptions(optimizer=name, weight_decay=0.5, weight_decay_on="weights")
    optimizer = build_optimizer(model.parameters(), options)
    optimizers = [optimizer, begin_averaging(optimizer)] if name == "nt_asgd" else [optimizer]
    for each in optimizers:
        for group in each.param_groups:
            group["lr"] = 0.1
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        each.step()
    for key, value in model.named_parameters():
        decays = key in ("0.weight", "3.weight")
        # torch's ASGD makes its first step at the learning rate that it was built with, here the same.
        expected = before[key] * (0.95 if decays else 1.0) ** len(optimizers)
        torch.testing.assert_close(value.detach(), expected, msg=key)


@pytest.mark.parametrize("name", ["sgd", "nt_asgd", "adam"])
def test_depthwise_weights_may_be_left_out_of_the_decay(name: str) -> None:
    parts = [nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 4, 3, groups=2), nn.BatchNorm2d(4)]
    model = nn.Sequential(*parts, nn.Flatten(), nn.Linear(4, 2))
    options = OptimisationOptions(optimizer=name, weight_decay=0.5, weight_decay_on="weights-not-depthwise")
    decays = {
        id(parameter): group["weight_decay"]
        for group in build_optimizer(model.parameters(), options).param_groups
        for parameter in group["params"]
    }
    decaying = {name for name, parameter in model.named_parameters() if decays[id(parameter)]}
    assert decaying == {"0.weight", "2.weight", "5.weight"}
    with pytest.raises(UserError, match="weights-not-depthwise is for networks with depthwise convolutions"):
        build_optimizer(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Linear(4, 1)).parameters(), options)


def test_only_nt_asgd_has_a_trigger() -> None:
    assert build_trigger(OptimisationOptions()) is None
    trigger = build_trigger(OptimisationOptions(optimizer="nt_asgd", nonmono=3))
    assert trigger is not None
    assert trigger.patience == 3
