"""Drop path: whole rows, keyed inside an update, by a probability that the number of the update says."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import seqba
from seqba.core import Noise, noise_context
from seqba.nn.drop_path import EpochRise


def keyed(module: nn.Module, x: torch.Tensor, *, update: int = 1, copies: tuple[int, ...] = (0,)) -> torch.Tensor:
    names = {id(each): name for name, each in module.named_modules()}
    with noise_context(Noise(7, update, 0, copies, names)):
        result: torch.Tensor = module(x)
        return result


@pytest.mark.parametrize("shape", [(3000, 2, 3, 1), (3000, 2), (3000,)])
def test_a_row_is_kept_or_dropped_as_a_whole_and_the_mean_stays(shape: tuple[int, ...]) -> None:
    module, x = seqba.nn.DropPath(0.25), torch.ones(shape)
    torch.manual_seed(0)
    for y in (keyed(module, x, copies=(0, 1)), module(x)):
        rows = y.reshape(3000, -1)
        assert torch.equal(rows, rows[:, :1].expand_as(rows))
        assert rows.unique().tolist() == pytest.approx([0, 1 / 0.75])
        assert rows.mean().item() == pytest.approx(1, abs=0.05)  # five deviations


def test_copies_and_operations_draw_for_themselves_and_every_plan_alike() -> None:
    modules = nn.ModuleList([seqba.nn.DropPath(0.5), seqba.nn.DropPath(0.5)])
    modules.forward = lambda x: torch.stack([module(x) for module in modules], 1)  # type: ignore[method-assign]
    x = torch.ones(80, 1)
    stacked = keyed(modules, x, copies=(0, 1))
    assert torch.equal(stacked, torch.cat([keyed(modules, x[:40], copies=(copy,)) for copy in (0, 1)]))
    assert not torch.equal(stacked[:40], stacked[40:])
    assert not torch.equal(stacked[:, 0], stacked[:, 1])
    assert not torch.equal(stacked, keyed(modules, x, update=2, copies=(0, 1)))


def test_in_evaluation_and_without_a_probability_it_is_the_identity() -> None:
    x = torch.ones(40, 3)
    for module in (seqba.nn.DropPath(0.5).eval(), seqba.nn.DropPath(0)):
        assert module(x) is x
        assert keyed(module, x) is x


def test_the_backward_goes_through_the_same_draws() -> None:
    module = seqba.nn.DropPath(0.4)
    x = torch.randn(6, 2, 2, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: keyed(module, x), (x,))


def test_the_share_rises_with_the_epoch() -> None:
    rise = EpochRise(epoch_updates=10, epochs=4)
    assert [rise(update) for update in (0, 1, 10, 11, 20, 21, 40, 41, 1000)] == [0, 0, 0, 0.25, 0.25, 0.5, 0.75, 1, 1]
    module, x = seqba.nn.DropPath(0.8), torch.ones(4000, 1)
    module.rise = rise
    assert keyed(module, x, update=10) is x  # no draw at all
    for update, p in ((11, 0.2), (31, 0.6), (41, 0.8)):
        y = keyed(module, x, update=update)
        assert y.unique().tolist() == pytest.approx([0, 1 / (1 - p)], rel=1e-3)
        assert (y == 0).double().mean().item() == pytest.approx(p, abs=0.04)
    torch.manual_seed(0)
    assert (module(x) == 0).double().mean().item() == pytest.approx(0.8, abs=0.04)  # outside an update


@pytest.mark.parametrize("p", [-0.1, 1.0, float("nan")])
def test_impossible_probabilities_are_refused(p: float) -> None:
    with pytest.raises(ValueError, match=r"it must be in \[0, 1\)"):
        seqba.nn.DropPath(p)


@pytest.mark.parametrize(("updates", "epochs"), [(0, 1), (1, 0)])
def test_impossible_rises_are_refused(updates: int, epochs: int) -> None:
    with pytest.raises(ValueError, match="both are at least 1"):
        EpochRise(updates, epochs)
