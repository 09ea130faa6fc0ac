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


class Below(nn.Module):
    """Copies that begin behind the noise, or before it."""

    def __init__(self, dropout: nn.Module, above: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.enter = nn.Linear(4, 4)
        self.below = dropout
        self.above = nn.Dropout(above)

    def forward(self, x: Tensor) -> Tensor:
        return self.above(torch.tanh(seqba.fork(lambda: self.below(self.enter(x)))))


@pytest.mark.parametrize("keyed", [False, True])
@pytest.mark.parametrize("plan", ["stacked", "looped", "auto", 2])
@pytest.mark.parametrize("dropout", [nn.Dropout, seqba.nn.Dropout])
def test_noise_that_is_all_below_a_fork_is_told_of_once(plan: Any, keyed: bool, dropout: Any) -> None:
    model = Below(dropout(0.5))
    with pytest.warns(UserWarning, match=r"noise above seqba\.fork.*: its copies are equal, M times the work"):
        update(model, plan=plan, keyed=keyed, forked=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        update(model, plan=plan, keyed=keyed, forked=True, **{"update": 2})
        update(Below(dropout(0.5), above=0.1), plan=plan, keyed=keyed, forked=True)
        update(Below(dropout(0.5)), plan=plan, keyed=keyed, forked=True, copies=1)


def test_a_loop_of_passes_tells_of_noise_below_a_fork() -> None:
    model = Below(nn.Dropout(0.5))

    def loop() -> None:
        for pass_ in seqba.copies(model, 2, update=1, forked=True):
            with pass_:
                loss(model, torch.ones(6, 4)).backward()

    with pytest.warns(UserWarning, match=r"noise above seqba\.fork"):
        loop()


def test_losses_are_compared_until_copies_have_been_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    model, equal, compared = network(0.0), torch.equal, []

    def counting(one: Tensor, other: Tensor) -> bool:
        compared.append(one.dim() == 0)
        return equal(one, other)

    monkeypatch.setattr(torch, "equal", counting)
    with pytest.warns(UserWarning, match=NOISELESS):
        update(model, plan="looped")
    assert sum(compared) == 2
    update(model, plan="looped")
    assert sum(compared) == 2


def test_views_of_a_generator_of_ones_own_are_seen_in_the_losses() -> None:
    generator = torch.Generator().manual_seed(0)

    def of_views(model: nn.Module, rows: Tensor) -> Tensor:
        return loss(model, rows + torch.randn(rows.shape, generator=generator))

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        update(network(0.0), of_views, plan="looped")
    with pytest.warns(UserWarning, match="a generator of its own isn't seen here"):  # one loss for all copies
        update(network(0.0), of_views, plan="stacked")


def test_a_loop_of_passes_tells_too() -> None:
    model, rows = network(0.5), torch.ones(6, 4)

    def loop() -> None:
        for pass_ in seqba.copies(model, 2, update=1):
            outside = loss(model, rows)  # not in the pass, whose noise it misses
            with pass_:
                outside.backward()

    with pytest.warns(UserWarning, match=NOISELESS):
        loop()
