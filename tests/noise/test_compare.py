"""Losses that compare the copies of an example: the same gradient whatever passes the copies run in."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from forked_network import ForkedNetwork
from small_network import Network, gradient_of, make_batch, relative_error, summed_loss
from torch import Tensor, nn

import seqba
from seqba.core import Plan, noise_context
from seqba.core.passes import Update
from seqba.group import SingleProcess

COPIES = 4
ALPHA = 1.7


@pytest.fixture
def network() -> Network:
    torch.manual_seed(1)
    return Network()


def spread(logits: Tensor, temperature: Tensor | None = None, *, copies: int) -> Tensor:
    """Sum over rows of the variance of their probabilities over the copies, at a temperature that is trained."""
    scaled = logits if temperature is None else logits * temperature
    return scaled.softmax(1).view(copies, -1, logits.shape[1]).var(0).sum() * 50


def compared_loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, int, dict[str, Tensor]]:
    """Summed cross-entropy, and how far the copies spread."""
    logits, target = model(batch[0]), seqba.per_copy(batch[1])
    term = seqba.compare_copies(spread, logits, model.leave.bias[:1])
    loss = nn.functional.cross_entropy(logits, target, reduction="sum") + ALPHA * term
    return loss, len(target), {"spread": term.detach()}


def gradient(model: nn.Module, **options: Any) -> tuple[Tensor, seqba.Step]:
    """Gradient of an update of two micro-batches, and its metrics."""
    model.zero_grad()
    micro_batches = [make_batch(6, dtype=torch.float64), make_batch(4, seed=1, dtype=torch.float64)]
    options = {"copies": COPIES, "weight": 10 * COPIES, "update": 3, "compared": True, **options}
    step = seqba.grid_gradient(model.double(), micro_batches, options.pop("loss_fn", compared_loss), **options)
    return gradient_of(model), step


@pytest.mark.parametrize("plan", ["looped", 2, 3, "auto", Plan(copies_per_pass=3, is_auto=True)])
def test_the_gradient_is_that_of_one_pass_in_every_plan(network: Network, plan: Any) -> None:
    expected, stacked = gradient(network, plan="stacked")
    found, step = gradient(network, plan=plan)
    assert relative_error(found, expected) < 1e-12
    assert step.loss == pytest.approx(stacked.loss, rel=1e-12)
    assert step.sums["spread"] == pytest.approx(stacked.sums["spread"], rel=1e-12) != 0


@pytest.mark.parametrize("plan", ["stacked", "looped", 3])
def test_the_gradient_is_that_of_the_definition(network: Network, plan: Any) -> None:
    """Every copy by itself under its noise, and one backward through all of them."""
    found, step = gradient(network, plan=plan)
    network.zero_grad()
    update = Update(network, seed=0, update=3, micro_batch=0)
    total = torch.zeros((), dtype=torch.float64)
    for number, rows in enumerate((6, 4)):
        x, target = make_batch(rows, seed=number, dtype=torch.float64)
        copies = []
        for copy in range(COPIES):
            with noise_context(update.noise(number, range(copy, copy + 1))):
                copies.append(network(x))
        logits = torch.cat(copies)
        total = total + nn.functional.cross_entropy(logits, target.repeat(COPIES), reduction="sum")
        total = total + ALPHA * spread(logits, network.leave.bias[:1], copies=COPIES)
    (total / (10 * COPIES)).backward()
    assert relative_error(found, gradient_of(network)) < 1e-12
    assert step.loss == pytest.approx(float(total.detach()) / (10 * COPIES), rel=1e-12)


@pytest.mark.filterwarnings("ignore:nothing drew noise")
def test_without_noise_copies_are_equal_and_the_gradient_is_the_plain_one() -> None:
    torch.manual_seed(1)
    model = Network(dropout=0.0)
    found, step = gradient(model, plan="looped")
    plain, _ = gradient(model, loss_fn=summed_loss, compared=False, plan="looped")
    assert relative_error(found, plain) < 1e-12
    assert step.sums["spread"] == pytest.approx(0, abs=1e-24)


def test_torchs_own_dropout_repeats_its_masks_in_the_second_forward() -> None:
    torch.manual_seed(1)
    model, seen = nn.Sequential(nn.Linear(7, 5), nn.Dropout(0.5)), []

    def loss_fn(model: nn.Module, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, int]:
        logits = model(batch[0])
        seen.append((torch.is_grad_enabled(), logits.detach()))
        return logits.square().sum() + seqba.compare_copies(spread, logits), len(logits)

    gradient(model, loss_fn=loss_fn, plan="looped")
    assert [with_graph for with_graph, _ in seen] == 2 * [*[False] * COPIES, *[True] * COPIES]
    for place in (0, 2 * COPIES):
        rounds = [[logits for _, logits in seen[start : start + COPIES]] for start in (place, place + COPIES)]
        assert all(map(torch.equal, *rounds))
        assert not torch.equal(rounds[0][0], rounds[0][1])


@pytest.mark.parametrize("plan", ["stacked", 2, "auto"])
def test_copies_that_begin_inside_the_network_are_compared_above_it(plan: Any) -> None:
    torch.manual_seed(1)
    model = ForkedNetwork()
    expected, looped = gradient(model, plan="looped", forked=True)
    assert model.times_below == 4  # for both micro-batches once without a graph, and once with it
    found, step = gradient(model, plan=plan, forked=True)
    assert relative_error(found, expected) < 1e-12
    assert step.sums["spread"] == pytest.approx(looped.sums["spread"], rel=1e-12) != 0


class Asked(list[Any]):
    """Micro-batches that tell which of them were asked for."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.numbers: list[int] = []

    def __getitem__(self, number: Any) -> Any:
        self.numbers.append(number)
        return super().__getitem__(number)


@pytest.mark.parametrize("forked", [False, True])
@pytest.mark.parametrize("plan", ["stacked", "looped", 3])
def test_a_micro_batch_is_asked_for_once(plan: Any, forked: bool) -> None:
    """What reads it may take its time, and may draw: the look and the passes see the same rows."""
    torch.manual_seed(1)
    model = ForkedNetwork().double() if forked else Network().double()
    micro_batches = Asked([make_batch(6, dtype=torch.float64), make_batch(4, seed=1, dtype=torch.float64)])
    weight = 10 * COPIES
    seqba.grid_gradient(
        model, micro_batches, compared_loss, copies=COPIES, weight=weight, plan=plan, compared=True, forked=forked
    )
    assert micro_batches.numbers == [0, 1]


def test_one_autocast_around_both_forwards_leaves_no_gradient_out() -> None:
    """Of a forward without a graph torch 2.6 keeps casts of weights without one, as long as autocast lasts."""

    def narrow(plan: str) -> Tensor:
        torch.manual_seed(1)
        model = nn.Sequential(nn.Linear(8, 16), nn.LayerNorm(16), seqba.nn.Dropout(0.3), nn.Linear(16, 3))

        def loss_fn(model: nn.Module, x: Tensor) -> tuple[Tensor, int]:
            rows = model(x).float()
            return rows.square().sum() + seqba.compare_copies(spread, rows), len(rows)

        x = torch.randn(6, 8, generator=torch.Generator().manual_seed(1))
        with torch.autocast("cpu", torch.bfloat16):
            seqba.merged_gradient(model, x, loss_fn, copies=3, plan=plan, update=1, compared=True)
        return gradient_of(model)

    assert relative_error(narrow("looped"), narrow("stacked")) < 0.02


def test_several_terms_of_a_loss_are_compared_each_by_itself(network: Network) -> None:
    def loss_fn(model: nn.Module, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, int]:
        logits = model(batch[0])
        terms = (seqba.compare_copies(spread, factor * logits) for factor in (1, 2))
        return logits.square().sum() + sum(terms), len(logits)

    expected, _ = gradient(network, loss_fn=loss_fn, plan="stacked")
    assert relative_error(gradient(network, loss_fn=loss_fn, plan="looped")[0], expected) < 1e-12


def test_what_a_backward_multiplies_the_loss_by_the_term_is_multiplied_by(network: Network) -> None:
    expected, _ = gradient(network, plan="looped")
    scaled, _ = gradient(network, plan="looped", backward=lambda loss: (8 * loss).backward())
    assert relative_error(scaled, 8 * expected) < 1e-12


def test_a_pass_without_a_graph_leaves_nothing_that_modules_gather() -> None:
    def statistics(plan: str) -> tuple[Tensor, Tensor]:
        torch.manual_seed(1)
        norm = seqba.nn.GhostBatchNorm2d(3, 2)
        model = nn.Sequential(nn.Conv2d(1, 3, 3), norm, seqba.nn.Dropout(0.3)).double()

        def loss_fn(model: nn.Module, x: Tensor) -> tuple[Tensor, int]:
            rows = model(x).flatten(1)
            return rows.square().sum() + seqba.compare_copies(spread, rows), len(rows)

        x = torch.randn(8, 1, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        seqba.grid_gradient(model, [x[:4], 3 * x[4:]], loss_fn, copies=3, weight=24, plan=plan, compared=True)
        return norm.running_mean, norm.running_var

    for auto, stacked in zip(statistics("auto"), statistics("stacked"), strict=True):  # auto loops the first one alone
        torch.testing.assert_close(auto, stacked, rtol=1e-12, atol=0)


@pytest.mark.parametrize("with_graph", [False, True])
def test_memory_that_runs_out_in_either_forward_is_got_over(network: Network, with_graph: bool) -> None:
    expected, _ = gradient(network, plan="stacked")

    def exhausting(model: nn.Module, batch: Any) -> Any:
        if torch.is_grad_enabled() == with_graph and len(batch[1]) > 12:
            raise torch.OutOfMemoryError("as a GPU would")
        return compared_loss(model, batch)

    plan = Plan(copies_per_pass=3, is_auto=True)
    found, _ = gradient(network, plan=plan, loss_fn=exhausting)
    assert plan.copies_per_pass == 1
    assert relative_error(found, expected) < 1e-12


class HalfOfTwo(SingleProcess):
    """The first of two processes, which has the first half of the copies; the other one is never heard of."""

    size = 2

    def cells(self, micro_batches: int, copies: int, rank: int | None = None) -> list[tuple[int, range]]:
        half = copies // 2
        return [(number, range(half, copies) if rank else range(half)) for number in range(micro_batches)]


@pytest.mark.parametrize("with_graph", [False, True])
def test_memory_that_runs_out_after_others_were_told_ends_the_update(network: Network, with_graph: bool) -> None:
    """The others wait for a gradient by then, not for the rows again."""

    def exhausting(model: nn.Module, batch: Any) -> Any:
        if torch.is_grad_enabled() == with_graph and len(batch[1]) > 6:
            raise torch.OutOfMemoryError("as a GPU would")
        return compared_loss(model, batch)

    plan = Plan(copies_per_pass=2, is_auto=True)
    with pytest.raises(torch.OutOfMemoryError) if with_graph else nullcontext():
        gradient(network, plan=plan, loss_fn=exhausting, ranks=HalfOfTwo(), weight=20)
    assert plan.copies_per_pass == 1


def test_outside_an_update_there_is_nothing_to_compare(network: Network) -> None:
    loss, _, sums = compared_loss(network.eval(), make_batch())
    assert sums["spread"] == 0
    assert torch.equal(loss, summed_loss(network, make_batch())[0])


def uneven(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Any:
    noise = seqba.current_noise()
    assert noise is not None
    logits = model(batch[0])
    return logits.sum() + seqba.compare_copies(spread, logits[noise.pass_copies[0] :]), len(logits)


@pytest.mark.parametrize(
    ("loss_fn", "options", "error", "message"),
    [
        (compared_loss, {"compared": False}, RuntimeError, "pass compared=True to merged_gradient or grid_gradient"),
        (summed_loss, {"plan": "stacked"}, RuntimeError, "the loss function never called seqba.compare_copies"),
        (summed_loss, {"plan": "looped"}, RuntimeError, "the loss function never called seqba.compare_copies"),
        (lambda *of: compared_loss(*of)[0], {}, ValueError, r"loss_fn must return \(sum, weight\)"),
        (uneven, {"plan": "looped"}, ValueError, "copies to compare have 6 and 5 rows"),
        (uneven, {"plan": 3}, ValueError, "copies to compare have 6 and 3 rows"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    loss_fn: Callable[..., Any], options: dict[str, Any], error: type[Exception], message: str, network: Network
) -> None:
    with pytest.raises(error, match=message):
        gradient(network, loss_fn=loss_fn, **options)
    assert all(parameter.grad is None for parameter in network.parameters())
