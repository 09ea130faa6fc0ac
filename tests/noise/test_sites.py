"""Layers that are recomputed in the backward draw what their forward drew, whichever of them, in whatever order."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from small_network import gradient_of, relative_error
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import seqba

Recompute = Callable[..., Any]


def not_at_all(function: Callable[..., Tensor], *given: Any) -> Tensor:
    return function(*given)


def keeping(use_reentrant: bool) -> Recompute:
    return functools.partial(checkpoint, use_reentrant=use_reentrant)


class Block(nn.Module):
    def __init__(self, noise: nn.Module) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)
        self.noise = noise

    def forward(self, x: Tensor) -> Tensor:
        return x + self.noise(torch.tanh(self.linear(x)))


class NoisyWeights(nn.Module):
    """A linear layer under DropConnect, each copy with its own masks."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(8, 8) / 3)
        self.noise = seqba.nn.WeightDropout(0.3)

    def forward(self, x: Tensor) -> Tensor:
        masks = self.noise(self.weight).to(x.dtype)  # (k, 8, 8)
        copies = x.view(len(masks), -1, 8)
        return (copies @ (self.weight * masks).transpose(1, 2)).reshape(x.shape)


class Moved(nn.Module):
    """A view of pictures in the middle of a network."""

    def __init__(self) -> None:
        super().__init__()
        self.views = nn.Sequential(seqba.nn.RandomCrop(2, 1), seqba.nn.Cutout(1), seqba.nn.HorizontalFlip())

    def forward(self, x: Tensor) -> Tensor:
        return self.views(x.reshape(-1, 2, 2, 2)).reshape(x.shape)


class Locked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.locked = seqba.nn.LockedDropout(0.3)

    def forward(self, x: Tensor) -> Tensor:
        return self.locked(x.view(-1, 2, 4)).view(x.shape)


NOISES = {"dropout": lambda: seqba.nn.Dropout(0.3), "locked": Locked, "weights": NoisyWeights, "pictures": Moved}


class Net(nn.Module):
    def __init__(self, noise: nn.Module, recompute: Recompute, times: int = 3) -> None:
        super().__init__()
        self.block = Block(noise)
        self.out = nn.Linear(8, 3)
        self.recompute = recompute
        self.times = times

    def forward(self, x: Tensor) -> Tensor:
        x = x.requires_grad_()  # a reentrant checkpoint needs it
        for _ in range(self.times):
            x = self.recompute(self.block, x)
        return self.out(x)


class Nested(Net):
    """A checkpoint around two layers that are checkpointed themselves, twice."""

    def inner(self, x: Tensor) -> Tensor:
        return self.recompute(self.block, self.recompute(self.block, x))

    def forward(self, x: Tensor) -> Tensor:
        x = x.requires_grad_()
        for _ in range(2):
            x = self.recompute(self.inner, x)
        return self.out(x)


def once(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


def twice(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Two forwards of the same rows in one loss, as R-Drop has."""
    return once(model, batch) + 0.5 * once(model, batch)


def gradient(
    net: type[Net], noise: Callable[[], nn.Module], recompute: Recompute, loss_fn: Any = once, **options: Any
) -> Tensor:
    torch.manual_seed(3)
    batch = torch.randn(6, 8, dtype=torch.float64), torch.randint(0, 3, (6,))
    model = net(noise(), recompute).double()
    seqba.merged_gradient(model, batch, loss_fn, copies=4, update=5, **options)
    return gradient_of(model)


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")  # the inner forward of a nested one
@pytest.mark.parametrize("use_reentrant", [False, True])
@pytest.mark.parametrize("plan", ["looped", "stacked", 3])
@pytest.mark.parametrize("loss_fn", [once, twice])
@pytest.mark.parametrize("net", [Net, Nested])
@pytest.mark.parametrize("noise", NOISES)
def test_a_block_used_several_times_has_the_gradient_that_it_has_without_recomputation(
    noise: str, net: type[Net], loss_fn: Any, plan: Any, use_reentrant: bool
) -> None:
    plain = gradient(net, NOISES[noise], not_at_all, loss_fn, plan=plan)
    recomputed = gradient(net, NOISES[noise], keeping(use_reentrant), loss_fn, plan=plan)
    assert relative_error(recomputed, plain) < 1e-12


def test_calls_may_be_recomputed_in_part_and_in_any_order() -> None:
    def some(function: Callable[..., Tensor], x: Tensor) -> Tensor:
        some.calls += 1
        return checkpoint(function, x, use_reentrant=False) if some.calls % 3 == 2 else function(x)

    some.calls = 0

    def backwards(model: Net, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Three branches, the first of which is needed last in the backward."""
        branches = [model(batch[0] * scale) for scale in (1, 2, 3)]
        return sum(nn.functional.cross_entropy(branches[place], batch[1]) for place in (2, 0, 1))

    plain = gradient(Net, NOISES["dropout"], not_at_all, backwards)
    assert relative_error(gradient(Net, NOISES["dropout"], some, backwards), plain) < 1e-12


def test_a_gradient_taken_inside_the_loss_recomputes_too() -> None:
    def penalised(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        rows = batch[0].clone().requires_grad_()
        (slope,) = torch.autograd.grad(model(rows).sum(), rows, create_graph=True)
        return once(model, batch) + slope.square().mean()

    plain = gradient(Net, NOISES["dropout"], not_at_all, penalised)
    assert relative_error(gradient(Net, NOISES["dropout"], keeping(False), penalised), plain) < 1e-12


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_without_the_generators_state_what_can_be_told_apart_is_right_and_the_rest_refused(use_reentrant: bool) -> None:
    bare = functools.partial(checkpoint, use_reentrant=use_reentrant, preserve_rng_state=False)
    plain = gradient(functools.partial(Net, times=1), NOISES["dropout"], not_at_all)
    assert relative_error(gradient(functools.partial(Net, times=1), NOISES["dropout"], bare), plain) < 1e-12
    with pytest.raises(RuntimeError, match=r"block\.noise draws noise during the backward, and 3 times in the forward"):
        gradient(Net, NOISES["dropout"], bare)


def test_a_draw_that_the_forward_never_made_is_refused_by_the_modules_name() -> None:
    class Late(Net):
        def forward(self, x: Tensor) -> Tensor:
            y = super().forward(x)
            y.register_hook(lambda grad: self.late(grad))
            return y

    def late(noise: nn.Module, recompute: Recompute) -> Net:
        model = Late(noise, recompute)
        model.late = seqba.nn.Dropout(0.5)
        return model

    with pytest.raises(RuntimeError, match=r"late draws noise during the backward for the 1\. time, but drew 0"):
        gradient(late, NOISES["dropout"], not_at_all)


def test_a_recomputed_layer_that_draws_more_often_is_refused() -> None:
    class Growing(seqba.nn.Dropout):
        calls = 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            return super().forward(super().forward(x) if self.calls == 2 else x)

    with pytest.raises(RuntimeError, match=r"block\.noise draws noise during the backward for the 2\. time"):
        gradient(functools.partial(Net, times=1), lambda: Growing(0.3), keeping(True), plan="stacked")


def test_the_generators_functions_are_put_back() -> None:
    before = torch.get_rng_state, torch.set_rng_state
    gradient(Net, NOISES["dropout"], keeping(False))
    assert (torch.get_rng_state, torch.set_rng_state) == before


@pytest.mark.filterwarnings("ignore:nothing drew noise")
def test_ghost_batch_norm_counts_a_recomputed_layer_once() -> None:
    def statistics(recompute: Recompute) -> Tensor:
        torch.manual_seed(0)
        norm = seqba.nn.GhostBatchNorm2d(2)
        model = nn.ModuleList([nn.Conv2d(2, 2, 1), norm])

        def loss_fn(model: nn.ModuleList, rows: Tensor) -> Tensor:
            hidden = model[0](rows)
            return (norm(hidden * 3) + recompute(norm, hidden)).square().mean()

        seqba.merged_gradient(model, torch.randn(4, 2, 3, 3), loss_fn, copies=2)
        return torch.cat([norm.running_mean, norm.running_var])

    assert torch.equal(statistics(keeping(False)), statistics(not_at_all))
    assert torch.equal(statistics(keeping(True)), statistics(not_at_all))


def test_modules_outside_the_model_keep_their_names_while_others_come_and_go() -> None:
    """An `id` is given to another object when its owner is gone; the next one must draw anew."""
    noise = seqba.core.Noise(0, 0, 0, (0,))
    draws = [noise.keep_mask(seqba.nn.Dropout(0.5), (4, 64), 0.5, torch.device("cpu")) for _ in range(3)]
    again = seqba.core.Noise(0, 0, 0, (0,))
    kept = [seqba.nn.Dropout(0.5) for _ in range(3)]
    for owner, drawn in zip(kept, draws, strict=True):
        assert torch.equal(again.keep_mask(owner, (4, 64), 0.5, torch.device("cpu")), drawn)
