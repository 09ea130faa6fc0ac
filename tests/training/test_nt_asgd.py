"""NT-ASGD: when it begins to average, and what the average is of."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from seqba.training.averages import exchanged
from seqba.training.nt_asgd import NonMonotonicTrigger, averages_of, begin_averaging


def released_rule(losses: list[float], nonmono: int) -> list[int]:
    """Validations at which the released code switches: its lines, word by word, without the `sgd` that stops it."""
    best, switches = [], []
    for number, loss in enumerate(losses):
        if len(best) > nonmono and loss > min(best[:-nonmono]):
            switches.append(number)
        best.append(loss)
    return switches


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("nonmono", [1, 2, 5])
def test_the_trigger_is_the_released_code_s(seed: int, nonmono: int) -> None:
    noise = torch.randn(40, generator=torch.Generator().manual_seed(seed))
    losses = (5 - 0.05 * torch.arange(40) + 0.3 * noise).tolist()
    trigger = NonMonotonicTrigger(nonmono)
    fired = [number for number, loss in enumerate(losses) if trigger.observe(loss)]
    assert fired == released_rule(losses, nonmono)[:1]
    assert trigger.has_fired == bool(fired)


def test_losses_that_fall_or_stay_never_fire() -> None:
    for step in (1, 0):
        trigger = NonMonotonicTrigger(0)
        assert not any(trigger.observe(10 - step * number) for number in range(20))


def test_a_validation_without_a_number_is_passed_over() -> None:
    trigger = NonMonotonicTrigger(1)
    assert [trigger.observe(loss) for loss in (float("nan"), 3.0, 2.0, 5.0)] == [False, False, False, True]


def test_a_trigger_goes_on_from_its_state() -> None:
    losses = [5.0, 4.0, 3.0, 4.5, 4.4]
    whole, first, second = (NonMonotonicTrigger(2) for _ in range(3))
    expected = [whole.observe(loss) for loss in losses]
    fired = [first.observe(loss) for loss in losses[:3]]
    second.load_state_dict(first.state_dict())
    assert fired + [second.observe(loss) for loss in losses[3:]] == expected == [False, False, False, False, True]


def run_steps(lrs: list[float]) -> tuple[list[float], float]:
    """A weight's values after each step with gradient 1, and its average at the end."""
    weight = nn.Parameter(torch.tensor([10.0], dtype=torch.float64))
    optimizer = begin_averaging(torch.optim.SGD([weight], lr=lrs[0]))
    values = []
    for lr in lrs:
        optimizer.param_groups[0]["lr"] = lr
        weight.grad = torch.ones(1, dtype=torch.float64)
        optimizer.step()
        values.append(weight.item())
    with exchanged(averages_of(optimizer)):
        average = weight.item()
    assert weight.item() == values[-1]
    return values, average


def test_the_average_begins_at_the_second_step() -> None:
    values, average = run_steps([0.5] * 6)
    assert values == pytest.approx([9.5, 9, 8.5, 8, 7.5, 7])
    assert average == pytest.approx(sum(values[1:]) / 5)


def test_a_step_runs_at_the_rate_of_the_step_before() -> None:
    values, _ = run_steps([1.0, 2.0, 4.0, 8.0])
    assert values == pytest.approx([9, 8, 6, 2])


def test_weight_decay_goes_on() -> None:
    optimizer = begin_averaging(torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=3.0, weight_decay=0.25))
    (group,) = optimizer.param_groups
    assert (group["lr"], group["weight_decay"], group["lambd"], group["t0"]) == (3.0, 0.25, 0.0, 0)


def test_plain_sgd_has_no_averages() -> None:
    assert averages_of(torch.optim.SGD([nn.Parameter(torch.ones(2))], lr=1.0)) == []
