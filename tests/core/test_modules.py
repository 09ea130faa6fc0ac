from __future__ import annotations

import torch
from torch import nn

from seqba.core.modules import modules_of, parameters_of


def test_they_are_torchs_own_in_the_same_order() -> None:
    shared = nn.Linear(2, 2)
    model = nn.Sequential(nn.Sequential(shared, nn.ReLU()), nn.ModuleList([shared, nn.LayerNorm(2)]), nn.Identity())
    model.absent = None
    model.register_module("none", None)
    model[2].weight = shared.weight
    assert [id(module) for module in modules_of(model)] == [id(module) for module in model.modules()]
    assert [id(one) for one in parameters_of(model)] == [id(one) for one in model.parameters()]
    assert not parameters_of(nn.Identity())
    assert torch.is_tensor(parameters_of(shared)[0])
