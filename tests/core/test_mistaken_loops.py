"""Mistakes of a loop or a loss function that give another gradient than meant: each is told."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from small_network import Network, make_batch, mean_loss, summed_loss
from torch import Tensor, nn

import seqba
from seqba.group import SingleProcess

BATCH = make_batch()
Loop = Callable[[nn.Module, torch.optim.Optimizer], None]


def loop(loss_fn: Any = mean_loss, *, to_none: bool = True, copies: int = 4, **options: Any) -> Loop:
    """A loop of one's own over one batch."""

    def train(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        for update in range(3):
            seqba.merged_gradient(model, BATCH, loss_fn, copies=copies, update=update, **options)
            optimizer.step()
            optimizer.zero_grad(set_to_none=to_none)

    return train


def without_clearing(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    for update in range(3):
        seqba.merged_gradient(model, BATCH, mean_loss, copies=2, update=update)
        optimizer.step()


def clearing_in_a_pass(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    for update in range(3):
        for pass_ in seqba.copies(model, 2, update=update):
            with pass_:
                loss = mean_loss(model, BATCH) / 2
                if not pass_.copy:
                    optimizer.zero_grad()
                loss.backward()
        optimizer.step()


def stepping_in_a_pass(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    for update in range(3):
        for pass_ in seqba.copies(model, 2, update=update):
            with pass_:
                (mean_loss(model, BATCH) / 2).backward()
                optimizer.step()
        optimizer.zero_grad()


def accumulating(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Two batches for each step, each with an update's number of its own."""
    for update in range(4):
        seqba.merged_gradient(model, BATCH, mean_loss, copies=2, update=update)
        if update % 2:
            optimizer.step()
            optimizer.zero_grad()


def step_in_the_backward(model: nn.Module) -> None:
    """Gives each parameter an optimizer, which steps and clears as its gradient comes."""

    def step_at_once(parameter: Tensor) -> None:
        own = optimizers[id(parameter)]
        own.step()
        own.zero_grad()

    optimizers = {id(each): torch.optim.SGD([each], 0.1) for each in model.parameters()}
    for parameter in model.parameters():
        parameter.register_post_accumulate_grad_hook(step_at_once)


def stepping_in_the_backward(model: nn.Module, _: torch.optim.Optimizer) -> None:
    """One pass an update."""
    step_in_the_backward(model)
    for update in range(3):
        seqba.merged_gradient(model, BATCH, mean_loss, copies=2, plan="stacked", update=update)


def stepping_between_passes(model: nn.Module, _: torch.optim.Optimizer) -> None:
    """A pass for each copy, and a layer that the loss doesn't reach."""
    model.unused = nn.Linear(2, 2)
    step_in_the_backward(model)
    for update in range(3):
        seqba.merged_gradient(model, BATCH, mean_loss, copies=2, plan="looped", update=update)


def changing_a_weight_in_the_forward(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """A table of vectors that follow the rows, say, which no gradient reaches."""
    model.table = nn.Parameter(torch.zeros(2))

    def loss_fn(model: nn.Module, batch: Any) -> Tensor:
        with torch.no_grad():
            model.table.add_(1)
        return mean_loss(model, batch)

    loop(loss_fn, plan="looped")(model, optimizer)


def training_parts_in_turn(model: nn.Module, _: torch.optim.Optimizer) -> None:
    """As two networks that play against each other: the optimizer of each clears it before its own step."""
    assert isinstance(model, Network)
    judge = torch.optim.SGD(model.leave.parameters(), 0.1)
    player = torch.optim.SGD([*model.enter.parameters(), *model.hidden.parameters()], 0.1)

    def hidden(batch: Any) -> Tensor:
        return model.dropout(model.hidden(torch.tanh(model.enter(batch[0]))))

    def judged(_: nn.Module, batch: Any) -> Tensor:
        return nn.functional.cross_entropy(model.leave(hidden(batch).detach()), batch[1])

    def played(_: nn.Module, batch: Any) -> Tensor:
        return -nn.functional.cross_entropy(model.leave(hidden(batch)), batch[1])

    for update, (optimizer, loss_fn) in enumerate([(judge, judged), (player, played)] * 2):
        optimizer.zero_grad()
        seqba.merged_gradient(model, BATCH, loss_fn, copies=2, update=update)
        optimizer.step()


def of_another_model(_: nn.Module, batch: Any) -> Tensor:
    return mean_loss(Network(), batch)


def detached(model: nn.Module, batch: Any) -> Tensor:
    return nn.functional.cross_entropy(model(batch[0]).detach().requires_grad_(), batch[1])


def mean_as_a_sum(model: nn.Module, batch: Any) -> tuple[Tensor, int]:
    return mean_loss(model, batch), len(batch[1])


def told(train: Loop, dropout: type[nn.Module] = seqba.nn.Dropout) -> list[str]:
    torch.manual_seed(0)
    model = Network()
    model.dropout = dropout(0.3)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        train(model, torch.optim.SGD(model.parameters(), 0.1))
    assert all(warning.filename == __file__ for warning in caught)
    return [str(warning.message) for warning in caught]


@pytest.mark.parametrize("dropout", [nn.Dropout, seqba.nn.Dropout])
@pytest.mark.parametrize(
    ("train", "line"),
    [
        (without_clearing, "call optimizer.zero_grad() between updates"),
        (stepping_in_a_pass, "call optimizer.step() after the last one"),
        (stepping_between_passes, "call optimizer.step() after the last one"),
        (loop(of_another_model), "no gradient reached a parameter of the model"),
        (loop(detached), "no gradient reached a parameter of the model"),
        (loop(mean_as_a_sum), "as a mean's would be, so that it is divided by its weight twice"),
    ],
)
def test_what_goes_wrong_is_told_once(train: Loop, line: str, dropout: type[nn.Module]) -> None:
    lines = told(train, dropout)
    assert len(lines) == 1
    assert line in lines[0]


@pytest.mark.parametrize("dropout", [nn.Dropout, seqba.nn.Dropout])
@pytest.mark.parametrize(
    "train",
    [
        loop(),
        loop(to_none=False),
        loop(summed_loss),
        loop(plan="stacked"),
        loop(plan="looped", keyed=True),
        accumulating,
        clearing_in_a_pass,
        stepping_in_the_backward,
        changing_a_weight_in_the_forward,
        training_parts_in_turn,
    ],
)
def test_a_loop_that_is_right_is_told_nothing(train: Loop, dropout: type[nn.Module]) -> None:
    assert told(train, dropout) == []


@pytest.mark.parametrize("loss_fn", [mean_loss, summed_loss])
def test_passes_of_about_as_many_copies_tell_neither_sums_nor_means(loss_fn: Any) -> None:
    """Four copies and five: one more makes a quarter of a sum, which is less than noise does."""
    for seed in range(10):
        assert told(loop(loss_fn, plan=5, seed=seed, copies=9)) == []


@pytest.mark.parametrize("kind", ["backward", "zero_grad"])
def test_a_loss_function_that_changes_gradients_is_refused(network: Network, kind: str) -> None:
    def loss_fn(model: nn.Module, batch: Any) -> Tensor:
        loss = mean_loss(model, batch)
        loss.backward(retain_graph=True) if kind == "backward" else model.zero_grad()
        return loss

    with pytest.raises(ValueError, match="loss_fn changed gradients"):
        seqba.merged_gradient(network, BATCH, loss_fn, copies=2, plan="looped")
    assert all(parameter.grad is None for parameter in network.parameters())


def with_a_criterion(*, is_frozen: bool = False, is_passed: bool = False, options: Any = None) -> Loop:
    """A scale that is learned, in a module beside the network or in one with it; rows have a gradient as well."""

    def train(network: nn.Module, _: torch.optim.Optimizer) -> None:
        criterion = nn.Linear(5, 5, bias=False).requires_grad_(not is_frozen)
        model = nn.ModuleList([network, criterion]) if is_passed else network

        def loss_fn(_: nn.Module, batch: Any) -> Tensor:
            return nn.functional.cross_entropy(criterion(network(batch[0].requires_grad_())), batch[1])

        for update in range(2):
            seqba.merged_gradient(model, BATCH, loss_fn, copies=2, update=update, **(options or {}))
            model.zero_grad()

    return train


@pytest.mark.parametrize("plan", ["stacked", "looped"])
def test_a_gradient_that_ranks_leave_out_is_told_of_once(plan: str) -> None:
    on_ranks = {"plan": plan, "ranks": SingleProcess()}
    (line,) = told(with_a_criterion(options=on_ranks))
    assert "parameters outside of the model, whose gradients ranks= neither adds up nor divides" in line
    assert told(with_a_criterion(options={"plan": plan})) == []
    assert told(with_a_criterion(options=on_ranks, is_frozen=True)) == []
    assert told(with_a_criterion(options=on_ranks, is_passed=True)) == []


@pytest.mark.parametrize("is_partial", [False, True])
def test_a_loss_function_that_comes_later_is_looked_at_too(network: Network, is_partial: bool) -> None:
    """An adversary's, say, after the first updates: its gradient of the rows is one of the weights as well."""

    def adversarial(model: nn.Module, batch: Any) -> Tensor:
        rows = batch[0].clone().requires_grad_()
        mean_loss(model, (rows, batch[1])).backward()
        return mean_loss(model, (batch[0] + 0.1 * rows.grad.sign(), batch[1]))

    loop(plan="looped")(network, torch.optim.SGD(network.parameters(), 0.1))
    with pytest.raises(ValueError, match="loss_fn changed gradients"):
        seqba.merged_gradient(network, BATCH, partial(adversarial) if is_partial else adversarial, copies=2, update=9)


def test_a_model_may_make_a_layer_as_it_first_runs() -> None:
    class Growing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.enter, self.dropout = nn.Linear(7, 16), seqba.nn.Dropout(0.3)

        def forward(self, x: Tensor) -> Tensor:
            if not hasattr(self, "leave"):
                self.leave = nn.Linear(16, 5)
            result: Tensor = self.leave(self.dropout(self.enter(x)))
            return result

    model = Growing()
    seqba.merged_gradient(model, BATCH, mean_loss, copies=2, plan="looped")
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_a_run_is_looked_at_though_it_was_checked_before() -> None:
    def train(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        seqba.check(model, BATCH, mean_loss)
        optimizer.zero_grad()
        without_clearing(model, optimizer)

    (line,) = told(train)
    assert "call optimizer.zero_grad() between updates" in line


class Tables(nn.Module):
    """Scores of contexts by words, from tables of either kind, whose forward shortens their rows in place."""

    def __init__(self, max_norm: float | None, *, biased: bool) -> None:
        super().__init__()
        self.words = nn.Embedding(7, 4, max_norm=max_norm)
        self.contexts = nn.EmbeddingBag(7, 4, max_norm=max_norm)
        self.bias = nn.Parameter(torch.zeros(())) if biased else 0.0
        self.dropout = seqba.nn.Dropout(0.3)

    def forward(self, words: Tensor) -> Tensor:
        scores: Tensor = (self.dropout(self.words(words)) * self.contexts(words.unsqueeze(1))).sum(1) + self.bias
        return scores


@pytest.mark.parametrize(("max_norm", "biased", "steps"), [(0.5, False, False), (0.5, True, True), (None, False, True)])
def test_rows_that_a_forward_shortens_are_no_step(max_norm: float | None, biased: bool, steps: bool) -> None:
    torch.manual_seed(0)
    model, words = Tables(max_norm, biased=biased), torch.arange(6)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for pass_ in seqba.copies(model, 2, update=0):
            with pass_:
                model(words).mean().backward()
                if steps:
                    optimizer.step()
    assert ["call optimizer.step() after the last one" in str(each.message) for each in caught] == [True] * steps


def test_tensors_outside_of_a_frozen_model_may_be_trained(network: Network) -> None:
    """A prompt that is learned, say."""
    network.requires_grad_(False)
    prompt = torch.zeros(7, requires_grad=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        seqba.merged_gradient(
            network, BATCH, lambda model, batch: mean_loss(model, (batch[0] + prompt, batch[1])), copies=2
        )
    assert prompt.grad is not None
