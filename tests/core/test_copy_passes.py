"""The passes of a micro-batch one by one, in a loop of the caller's own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from foreign_models import gradient, make_model, make_rows, square_loss
from small_network import Network, make_batch, mean_loss
from torch import Tensor, nn

import seqba

COPIES = 3


def looped(model: nn.Module, loss_fn: Any, batch: Any, **key: Any) -> Tensor:
    for pass_ in seqba.copies(model, COPIES, **key):
        with pass_:
            (loss_fn(model, batch) / COPIES).backward()
    return gradient(model)


@pytest.mark.parametrize("name", ["nn.Dropout", "Transformer", "Transformer, time first", "drop path", "LayerDrop"])
def test_it_is_the_looped_plan_of_the_merged_gradient(name: str) -> None:
    key = {"update": 7, "seed": 2, "micro_batch": 1}
    model = make_model(name)
    seqba.merged_gradient(model, make_rows(), square_loss, copies=COPIES, plan="looped", keyed=True, **key)
    expected = gradient(model)
    model.zero_grad()
    found = looped(model, square_loss, make_rows(), rows=len(make_rows()), **key)
    assert (found - expected).norm() <= 1e-15 * expected.norm()


@pytest.mark.filterwarnings("ignore:nothing drew noise")
def test_passes_tell_their_numbers() -> None:
    model = make_model("nn.Dropout")
    told = []
    for pass_ in seqba.copies(model, COPIES, update=0):
        with pass_ as entered:
            told.append((entered.copy, entered.is_last))
    assert told == [(0, False), (1, False), (2, True)]


def test_a_pass_that_is_not_entered_is_told_of() -> None:
    model = make_model("nn.Dropout")
    with pytest.raises(RuntimeError, match="wasn't entered: compute its loss and gradient in `with pass_:`"):
        list(seqba.copies(model, COPIES, update=0))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((nn.Linear(1, 1), 0), ValueError, "copies is 0; it must be at least 1"),
        ((nn.Linear(1, 1), 1.5), TypeError, r"copies must be a whole number, not 1\.5"),
        (("model", 2), TypeError, r"model must be a torch\.nn\.Module, not a str"),
    ],
)
def test_impossible_arguments_are_refused_at_once(arguments: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        seqba.copies(*arguments, update=0)


class Gathering(nn.Linear):
    """Notes what it is told at the end of an update."""

    def __init__(self) -> None:
        super().__init__(8, 8)
        self.told: list[bool] = []

    def gathered(self) -> list[Tensor]:
        return []

    def finish_update(self, *, keep: bool) -> None:
        self.told.append(keep)


@pytest.mark.filterwarnings("ignore:nothing drew noise")
def test_modules_that_gather_are_told_of_the_end() -> None:
    model = Gathering().double()
    looped(model, square_loss, make_rows(), update=0)
    assert model.told == [True]
    looped(model, square_loss, make_rows(), update=1, end_update=False)
    assert model.told == [True]

    def failing(model: nn.Module, rows: Tensor) -> Tensor:
        raise KeyError

    with pytest.raises(KeyError):
        looped(model, failing, make_rows(), update=2)
    assert model.told == [True, False]
    with pytest.raises(RuntimeError, match=r"neither the model nor the loss called seqba\.fork"):
        looped(model, square_loss, make_rows(), update=3, forked=True)
    assert model.told == [True, False, False]
    assert seqba.current_noise() is None


@pytest.mark.filterwarnings("ignore:nothing drew noise")
def test_a_loop_that_ends_early_is_told_of_and_leaves_nothing_gathered() -> None:
    model = Gathering().double()

    def loop(passes: int, *, within: bool = False) -> None:
        for pass_ in seqba.copies(model, COPIES, update=0):
            with pass_:
                square_loss(model, make_rows()).backward()
                if within and pass_.copy + 1 == passes:
                    break
            if pass_.copy + 1 == passes:
                break

    for within in (False, True):
        with pytest.warns(UserWarning, match="ended after 2 of 3 passes: .grad has a part of the gradient") as warned:
            loop(2, within=within)
        assert [warning.filename for warning in warned] == [__file__]
    assert model.told == [False, False]
    loop(COPIES)  # nothing is missing
    assert model.told == [False, False, True]
    seqba.copies(model, COPIES, update=0)
    next(seqba.copies(model, COPIES, update=0))  # nothing has run
    assert model.told == [False, False, True]


def test_a_pass_that_is_left_out_leaves_nothing_gathered() -> None:
    model = Gathering().double()
    passes = seqba.copies(model, COPIES, update=0)
    with next(passes):
        square_loss(model, make_rows()).backward()
    next(passes)
    with pytest.raises(RuntimeError, match="wasn't entered"):
        next(passes)
    assert model.told == [False]


def test_a_forgotten_update_number_is_told_of() -> None:
    torch.manual_seed(1)
    network = Network()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    looped(network, mean_loss, make_batch(), update=0)
    optimizer.step()
    with pytest.warns(UserWarning, match="pass update=") as warned:
        looped(network, mean_loss, make_batch(), update=0)
    assert [warning.filename for warning in warned] == [__file__]


def test_a_forgotten_micro_batch_number_is_told_of() -> None:
    torch.manual_seed(1)
    network = Network()
    looped(network, mean_loss, make_batch(), update=0)
    looped(network, mean_loss, make_batch(), update=0, micro_batch=1)
    with pytest.warns(UserWarning, match="micro_batch=0, 1, …") as warned:
        looped(network, mean_loss, make_batch(), update=0, micro_batch=1)
    assert [warning.filename for warning in warned] == [__file__]
