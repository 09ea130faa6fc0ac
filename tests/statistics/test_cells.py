"""The split of an update's own passes: that of the cells' gradients, at no pass more and few operations."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from noisy_regression import DROPOUT, MEANS, WIDTH, NoisyRegression, Row, examples, loss
from small_network import Network, gradient_of, make_batch, summed_loss
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import seqba
from seqba.statistics import CellSplit, CellWatch


def batches(count: int, rows: int, seed: int = 0) -> list[Row]:
    drawn = examples(count * rows, seed=seed)
    return [tuple(torch.cat(parts) for parts in zip(*drawn[place::count], strict=True)) for place in range(count)]  # type: ignore[misc]


def watched(model: nn.Module, micro_batches: list[Any], copies: int, loss_fn: Any, update: int = 0) -> CellSplit:
    watch = CellWatch(model)
    weight = copies * sum(len(batch[1]) for batch in micro_batches)
    seqba.grid_gradient(
        model, micro_batches, watch.watching(loss_fn), copies=copies, weight=weight, plan="looped", update=update
    )
    return watch.split()


def test_the_split_is_that_of_the_gradients_of_the_cells(network: Network) -> None:
    micro_batches = [make_batch(rows, seed=rows) for rows in (2, 5, 4)]
    split = watched(network, micro_batches, 2, summed_loss)
    gradients = torch.empty(3, 2, sum(parameter.numel() for parameter in network.parameters()))
    for place, batch in enumerate(micro_batches):
        first, both = (_gradient_of_copies(network, batch, place, copies) for copies in (1, 2))
        gradients[place] = torch.stack([first, both - first])
    gradients = gradients.double() * 3 / 11  # summed losses ÷ the mean weight
    means = gradients.mean(1)
    noise = float((gradients - means[:, None]).square().sum()) / 3
    between = float((means - means.mean(0)).square().sum()) / 2 - noise / 2
    assert split.noise == pytest.approx(noise, rel=1e-4)
    assert split.between == pytest.approx(between, rel=1e-4)
    assert split.signal == pytest.approx(float(means.mean(0).square().sum()) - between / 3 - noise / 6, rel=1e-4)
    assert split.total == pytest.approx(noise + between, rel=1e-4)


def _gradient_of_copies(network: Network, batch: tuple[Tensor, Tensor], place: int, copies: int) -> Tensor:
    """The summed loss's gradient by the first copies of micro-batch `place`."""
    network.zero_grad()
    step = seqba.merged_gradient(network, batch, summed_loss, copies=copies, micro_batch=place, plan="looped")
    return gradient_of(network) * step.weight


@pytest.mark.filterwarnings("ignore:this gradient was added to that of a call before")
def test_gradients_that_were_there_before_count_for_nothing(network: Network) -> None:
    micro_batches = [make_batch(3, seed=1), make_batch(4, seed=2)]
    fresh = watched(network, micro_batches, 2, summed_loss)
    later = watched(network, micro_batches, 2, summed_loss)  # .grad holds those of the update before
    for name in ("signal", "between", "noise", "total"):
        assert getattr(later, name) == pytest.approx(getattr(fresh, name), rel=1e-4)


def test_the_gradient_of_the_update_is_the_same_to_the_last_bit(network: Network) -> None:
    micro_batches = [make_batch(3, seed=1), make_batch(4, seed=2)]
    watched(network, micro_batches, 3, summed_loss)
    seen = gradient_of(network)
    network.zero_grad()
    seqba.grid_gradient(network, micro_batches, summed_loss, copies=3, weight=21, plan="looped")
    assert torch.equal(seen, gradient_of(network))


def test_the_mean_over_updates_is_the_split_that_is_worked_out() -> None:
    """Micro-batches of 4 examples: S_b/4 and S_w/4."""
    model, found = NoisyRegression(), []
    for update in range(60):
        found.append(watched(model, batches(2, 4, seed=update), 2, loss, update))
        model.zero_grad()
    signal = float(MEANS.square().sum())
    noise = (signal + WIDTH) * DROPOUT / (1 - DROPOUT)
    for name, expected in (("signal", signal), ("between", WIDTH / 4), ("noise", noise / 4)):
        mean = sum(getattr(split, name) for split in found) / len(found)
        assert mean == pytest.approx(expected, rel=0.1), name


def test_the_mean_over_updates_of_one_copy_is_the_total_that_is_worked_out() -> None:
    model, found = NoisyRegression(), []
    for update in range(60):
        found.append(watched(model, batches(2, 4, seed=update), 1, loss, update))
        model.zero_grad()
    signal = float(MEANS.square().sum())
    total = (WIDTH + (signal + WIDTH) * DROPOUT / (1 - DROPOUT)) / 4
    for name, expected in (("signal", signal), ("total", total)):
        assert sum(getattr(split, name) for split in found) / len(found) == pytest.approx(expected, rel=0.1), name


def test_one_micro_batch_shows_the_noise_and_one_copy_the_total(network: Network) -> None:
    several = [make_batch(4, seed=number) for number in range(3)]
    grid = watched(network, several, 2, summed_loss)
    network.zero_grad()
    only_copies = watched(network, several[:1], 2, summed_loss)
    network.zero_grad()
    only_batches = watched(network, several, 1, summed_loss)
    network.zero_grad()
    nothing = watched(network, several[:1], 1, summed_loss)
    assert None not in (grid.signal, grid.between, grid.noise, grid.total)
    assert (only_copies.signal, only_copies.between, only_copies.total) == (None, None, None)
    assert only_copies.noise is not None
    assert only_copies.noise > 0
    assert (only_batches.between, only_batches.noise) == (None, None)
    assert only_batches.total is not None
    assert only_batches.total > 0
    assert nothing == CellSplit(None, None, None, None)


class Counting(TorchDispatchMode):
    """Counts the elements that operations of the parameters' sizes go through, by kind."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0
        self.products = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name()
        if "_foreach" in name:
            self.elements += sum(part.numel() for part in args[0])
        self.products += "mm" in name
        return func(*args, **(kwargs or {}))


def test_the_work_beside_the_passes_is_five_sweeps_over_the_parameters_a_cell(network: Network) -> None:
    """No product more than without, and at 256 rows a cell the sweeps are below 2% of it, before --measure-every."""
    parameters = sum(parameter.numel() for parameter in network.parameters())
    micro_batches = [make_batch(256, seed=1), make_batch(256, seed=2)]
    with Counting() as plain:
        seqba.grid_gradient(network, micro_batches, summed_loss, copies=2, weight=1024, plan="looped")
    network.zero_grad()
    with Counting() as seen:
        watched(network, micro_batches, 2, summed_loss)
    assert seen.products == plain.products
    assert plain.elements == 0
    assert seen.elements <= (5 * 4 + 2 * 2 + 1) * parameters
    assert seen.elements < 0.02 * 6 * parameters * 256 * 4


def test_another_plan_than_looped_is_refused(network: Network) -> None:
    watch = CellWatch(network)
    with pytest.raises(ValueError, match="under the plan looped alone"):
        seqba.merged_gradient(network, make_batch(2), watch.watching(summed_loss), copies=2, plan="stacked")
    with pytest.raises(ValueError, match="no pass was seen"):
        CellWatch(network).split()
