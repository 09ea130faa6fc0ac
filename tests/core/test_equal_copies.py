"""Copies that nothing makes different are told of: M times the work for the gradient of one."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import seqba

OFF = "evaluation mode.*call model.train"
NOISELESS = "nothing from torch's generators.*give the model noise"


def network(dropout: nn.Module | float) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 4), nn.Dropout(dropout) if isinstance(dropout, float) else dropout)


def loss(model: nn.Module, rows: Tensor) -> Tensor:
    return model(rows).square().mean()


def update(model: nn.Module, loss_fn: Any = loss, **options: Any) -> None:
    rows = torch.linspace(-1, 1, 24).view(6, 4)
    seqba.merged_gradient(model, rows, loss_fn, **{"copies": 3, "update": 1, **options})


@pytest.mark.parametrize("keyed", [False, True])
@pytest.mark.parametrize("plan", ["stacked", "looped", "auto", 2])
def test_equal_copies_are_told_of_once(plan: Any, keyed: bool) -> None:
    for model, match in ((network(0.5).eval(), OFF), (network(0.0), NOISELESS)):
        with pytest.warns(UserWarning, match=match):
            update(model, plan=plan, keyed=keyed)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            update(model, plan=plan, keyed=keyed)


@pytest.mark.parametrize("keyed", [False, True])
@pytest.mark.parametrize("plan", ["stacked", "looped"])
def test_different_copies_are_not(plan: Any, keyed: bool) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        update(network(0.5), plan=plan, keyed=keyed)
        update(network(seqba.nn.Dropout(0.5)), plan=plan, keyed=keyed)
        update(network(0.0), lambda model, rows: loss(model, rows + torch.randn_like(rows)), plan=plan, keyed=keyed)
        update(network(0.0), plan=plan, keyed=keyed, copies=1)
        rows = torch.randn(12, 4, generator=torch.Generator().manual_seed(0))
        seqba.merged_gradient(network(0.0), rows, loss, copies=2, update=1, plan=plan, keyed=keyed, replicated=True)


def test_views_of_a_generator_of_ones_own_are_seen_in_the_losses() -> None:
    generator = torch.Generator().manual_seed(0)

    def of_views(model: nn.Module, rows: Tensor) -> Tensor:
        return loss(model, rows + torch.randn(rows.shape, generator=generator))

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        update(network(0.0), of_views, plan="looped")


def test_a_loop_of_passes_tells_too() -> None:
    model, rows = network(0.5), torch.ones(6, 4)

    def loop() -> None:
        for pass_ in seqba.copies(model, 2, update=1):
            outside = loss(model, rows)  # not in the pass, whose noise it misses
            with pass_:
                outside.backward()

    with pytest.warns(UserWarning, match=NOISELESS):
        loop()
