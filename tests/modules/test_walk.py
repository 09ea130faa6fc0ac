from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import seqba
from seqba.core import passes
from seqba.core.passes import Update
from seqba.modules.walk import gradients_of, modules_of, parameters_of


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
    assert gradients_of(model) == []
    shared.weight.grad, model[1][1].bias.grad = torch.ones(2, 2), torch.zeros(2)
    assert [id(one) for one in gradients_of(model)] == [id(shared.weight.grad), id(model[1][1].bias.grad)]


def test_a_module_that_changes_its_name_draws_by_the_new_one() -> None:
    """As in the process that goes on with the run, which never knew the former name."""

    def masks(model: nn.Sequential) -> list[Tensor]:
        seen: list[Tensor] = []
        seqba.merged_gradient(
            model, torch.ones(4, 64), lambda model, x: (seen.append(y := model(x)), y.mean())[1], copies=1
        )
        model.zero_grad()
        return [drawn.detach() for drawn in seen]

    def network(name: str) -> nn.Sequential:
        model = nn.Sequential()
        model.add_module("scale", nn.LayerNorm(64))
        model.add_module(name, seqba.nn.Dropout(0.5))
        return model

    renamed = network("before")
    nn.init.constant_(renamed.scale.bias, 1.0)
    before = masks(renamed)
    renamed.add_module("after", renamed._modules.pop("before"))
    fresh = network("after")
    nn.init.constant_(fresh.scale.bias, 1.0)
    assert torch.equal(masks(renamed)[0], masks(fresh)[0])
    assert not torch.equal(masks(renamed)[0], before[0])


@pytest.mark.filterwarnings("error")
def test_a_model_that_has_gone_to_another_device_may_run_the_same_update() -> None:
    model = nn.Linear(2, 2)
    for device in ("cpu", "meta", "cpu"):
        model = model.to_empty(device=device)
        model.weight.grad = torch.zeros_like(model.weight)
        update = Update(model, seed=0, update=0, micro_batch=0, keyed=False)
        noise = update.noise(0, range(1))
        noise.draws = 1
        update.warnings.note(noise)
        update.warnings.warn(stacklevel=1)


@pytest.mark.parametrize("has_processes", [False, True])
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_a_scripted_model_trains_and_is_told_of(monkeypatch: pytest.MonkeyPatch, *, has_processes: bool) -> None:
    monkeypatch.setattr(passes, "has_processes", lambda: has_processes)  # where torch's have met, forwards are watched
    model = torch.jit.script(nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5)))

    def loss_fn(model: nn.Module, x: Tensor) -> Tensor:
        return model(x).square().mean()

    for _ in range(2):
        seqba.merged_gradient(model, torch.ones(4, 4), loss_fn, copies=2, plan="looped", keyed=True)
        gradients = gradients_of(model)
        model.zero_grad()
    assert len(gradients) == 2
    assert seqba.check(model, torch.ones(4, 4), loss_fn).unkeyed
