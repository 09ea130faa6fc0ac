"""The end of an update reaches every module that gathers, once, after the last pass."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from seqba.core import Noise, finish_update, grid_gradient, merged_gradient, noise_context
from seqba.core.plan import Plan
from seqba.modules.update_hooks import discarding_pending
from seqba.nn import GhostBatchNorm2d


class Counter(nn.Module):
    """Counts the passes of an update, and notes what it is told at its end."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.passes = 0
        self.told: list[tuple[int, bool]] = []

    def forward(self, x: Tensor) -> Tensor:
        self.passes += 1
        return x * self.weight

    def gathered(self) -> list[Tensor]:
        return []

    def finish_update(self, *, keep: bool) -> None:
        self.told.append((self.passes, keep))
        self.passes = 0


def loss_fn(model: nn.Module, x: Tensor) -> tuple[Tensor, float]:
    return model(x).sum(), len(x)


@pytest.mark.filterwarnings("ignore:nothing drew noise")
@pytest.mark.parametrize(("plan", "passes"), [("stacked", 1), ("looped", 4), (3, 2)])
def test_merged_gradient_ends_its_update(plan: str | int, passes: int) -> None:
    model = nn.Sequential(Counter(), Counter())
    merged_gradient(model, torch.ones(2, 1), loss_fn, copies=4, plan=plan)  # type: ignore[arg-type]
    assert [module.told for module in model] == [[(passes, True)]] * 2


@pytest.mark.filterwarnings("ignore:nothing drew noise")
def test_merged_gradient_keeps_nothing_of_a_loss_that_is_not_finite() -> None:
    model = Counter()
    merged_gradient(model, torch.full((2, 1), torch.inf), loss_fn, copies=2, plan="looped")
    assert model.told == [(2, False)]


@pytest.mark.filterwarnings("ignore:nothing drew noise")
def test_the_end_may_be_left_to_who_decides_about_the_step() -> None:
    model = Counter()
    grid_gradient(model, [torch.ones(2, 1)] * 3, loss_fn, copies=2, weight=12, plan="looped", end_update=False)
    merged_gradient(model, torch.ones(2, 1), loss_fn, copies=2, plan="looped", end_update=False)
    assert model.told == []
    finish_update(model, keep=False)
    assert model.told == [(8, False)]
    grid_gradient(model, [torch.ones(2, 1)] * 3, loss_fn, copies=2, weight=12, plan="looped")
    assert model.told == [(8, False), (6, True)]


@pytest.mark.filterwarnings("ignore:nothing drew noise")
def test_an_attempt_that_ran_out_of_memory_is_forgotten() -> None:
    model = Counter()

    def loss_of_a_small_device(model: nn.Module, x: Tensor) -> tuple[Tensor, float]:
        total = model(x).sum()
        if len(x) > 4:
            raise torch.OutOfMemoryError("too many rows")
        return total, len(x)

    plan = Plan(copies_per_pass=4, is_auto=True)
    merged_gradient(model, torch.ones(2, 1), loss_of_a_small_device, copies=4, plan=plan)
    assert model.told == [(1, False), (2, True)]


@pytest.mark.parametrize("had_gradients", [False, True])
def test_what_a_failed_update_gathered_is_forgotten(had_gradients: bool) -> None:
    model = Counter()
    if had_gradients:
        model.weight.grad = torch.ones(())

    def failing(model: nn.Module, x: Tensor) -> tuple[Tensor, float]:
        total = model(x).sum()
        if model.passes == 2:
            raise torch.OutOfMemoryError("no room for a second pass")
        return total, len(x)

    with pytest.raises(torch.OutOfMemoryError, match="no room"):
        grid_gradient(model, [torch.ones(2, 1)] * 3, failing, copies=1, weight=6, plan="looped")
    assert model.told == [(2, False)]


def test_what_an_interrupted_update_gathered_is_forgotten() -> None:
    model = Counter()

    def interrupted(model: nn.Module, x: Tensor) -> tuple[Tensor, float]:
        if model.passes == 2:
            raise KeyboardInterrupt
        return model(x).sum(), len(x)

    with pytest.raises(KeyboardInterrupt):
        merged_gradient(model, torch.ones(2, 1), interrupted, copies=3, plan="looped")
    assert model.told == [(2, False)]


@pytest.mark.parametrize("before", [0, 2])
def test_a_pass_for_nothing_gathers_zeros_beside_what_was_gathered(before: int) -> None:
    norms = nn.Sequential(GhostBatchNorm2d(3), GhostBatchNorm2d(3))
    x = torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    with noise_context(Noise(seed=1, update=1, micro_batch=0, copies=[0])):
        for _ in range(before):
            norms(x)
        earlier = [sums.clone() for module in norms for sums in module.gathered()]
        with discarding_pending(norms):
            norms(x + 5)
    now = [sums for module in norms for sums in module.gathered()]
    assert len(now) == 2
    for sums, expected in zip(now, earlier or [torch.zeros(3, 3)] * 2, strict=True):
        assert torch.equal(sums, expected)
