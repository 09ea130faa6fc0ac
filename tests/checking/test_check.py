"""What a check says of models that are right, and of models that are wrong on purpose."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from foreign_models import MODELS, make_model, make_rows, square_loss
from torch import Tensor, nn
from torch.nn.functional import dropout as imported_dropout
from torch.nn.utils.parametrizations import spectral_norm

import seqba
from seqba.checking.report import Report
from seqba.checking.unkeyed import UnkeyedDraw, UnkeyedDraws
from seqba.checking.untouched import untouched


class Imported(nn.Module):
    """Dropout under a name that was taken before anything could be replaced."""

    def forward(self, x: Tensor) -> Tensor:
        return imported_dropout(x, 0.3, self.training)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, 8, 2, dropout=0.3, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.lstm(x)[0]


class ByPython(nn.Module):
    """A layer that is dropped by Python's generator, and one by NumPy's."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(8))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            if random.random() < 0.5 and np.random.rand() < 0.9:  # noqa: NPY002, S311 - what is tested
                x = layer(x)
        return x


class ByGenerator(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)
        self.generator = torch.Generator().manual_seed(0)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x * torch.rand(x.shape, generator=self.generator, dtype=x.dtype))


class Table(nn.Module):
    """Dropout on a table of positions without a dimension of rows, as DeBERTa has it."""

    def __init__(self) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.randn(8, 8))
        self.layer = nn.Linear(8, 8)
        self.dropout = nn.Dropout(0.3)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x + self.dropout(self.positions)[: x.shape[1]])


def noisy(*modules: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(8, 8), *modules, nn.Dropout(0.3), nn.Linear(8, 8))


def checked(model: nn.Module, loss_fn: Any = square_loss, batch: Any = None, **options: Any) -> Report:
    torch.manual_seed(1)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5)
    return seqba.check(model.double(), make_rows() if batch is None else batch, loss_fn, **options)


@pytest.mark.parametrize("name", sorted(set(MODELS) - {"LayerDrop"}))
def test_nothing_is_found_where_the_promise_holds(name: str) -> None:
    report = seqba.check(make_model(name), make_rows(6), square_loss, copies=4)  # more rows than places: told apart
    assert report.is_fine, str(report)
    assert report.stacked_looped.agrees
    assert str(report).startswith("seqba.check with 4 copies: fine in every plan\n")


def summed(model: nn.Module, rows: Tensor) -> Tensor:
    return model(rows).square().sum()


def over_pairs(model: nn.Module, rows: Tensor) -> Tensor:
    """A contrastive loss: each row against all others of the pass."""
    hidden = model(rows).flatten(1)
    return -(hidden @ hidden.T).log_softmax(-1).diagonal().mean()


def joined_views(model: nn.Module, rows: Tensor) -> Tensor:
    """Two views of each row in one call, view after view."""
    one, other = model(torch.cat([rows, 2 * rows])).chunk(2)
    return (one - 2 * other).square().mean()


def neighbouring_views(model: nn.Module, rows: Tensor) -> Tensor:
    one, other = model(torch.stack([rows, 2 * rows], 1).flatten(0, 1)).unflatten(0, (-1, 2)).unbind(1)
    return (one - 2 * other).square().mean()


def over_drawn_tokens(model: nn.Module, rows: Tensor) -> Tensor:
    return model(rows)[torch.rand(rows.shape[:2]) < 0.5].square().mean()


class Counting(nn.Module):
    """Keeps a number between forwards that is no buffer."""

    forwards = 0

    def forward(self, x: Tensor) -> Tensor:
        self.forwards += 1
        return x * self.forwards


@pytest.mark.parametrize(
    ("model", "loss_fn", "told"),
    [
        (
            lambda: noisy(Imported()),
            square_loss,
            [r"1 \(Imported\) draws by aten\.bernoulli_ \(1 times a copy\)", r"call the function of torch by its"],
        ),
        (Recurrent, square_loss, [r"lstm \(LSTM\) draws by aten\.\w+ \(1 times a copy\)", r"LSTM\(dropout=0\) of one"]),
        (
            lambda: noisy(nn.BatchNorm1d(5)),
            square_loss,
            [r"1: batch normalisation over whatever", "GhostBatchNorm2d"],
        ),
        (
            lambda: noisy(spectral_norm(nn.Linear(8, 8))),
            square_loss,
            [r"1\.parametrizations\.weight\.0\._u, .*: changed by every forward", "recomputed layers differ"],
        ),
        (Table, square_loss, [r"dropout draws \(8, 8\) for a table that has no rows", 'plan="looped"']),
        (ByGenerator, square_loss, ["the same update repeated isn't", "without a generator of your own"]),
        (noisy, lambda model, rows: square_loss(model, rows) / 0.0, ["the gradient isn't finite, from 0.weight on"]),
        (noisy, lambda model, rows: rows.clone().requires_grad_().square().mean(), ["no gradient reaches a parameter"]),
        (ByPython, square_loss, [r"the same update repeated isn't the same: NO \(", "not by Python's random or NumPy"]),
        (noisy, summed, ["the loss grows with the rows", r"return the mean over rows, or \(sum, weight\)"]),
        (noisy, over_pairs, [r"stacked isn't looped: NO \(.*, from 0\.weight on\)", "rows see each other"]),
        (noisy, joined_views, ["stacked isn't looped", "views joined by torch.cat"]),
        (noisy, over_drawn_tokens, ["stacked isn't looped", "as many terms as were drawn"]),
        (lambda: noisy(Counting()), square_loss, ["repeated isn't the same", "keeps something between forwards"]),
        (lambda: nn.Linear(8, 8), square_loss, ["the copies are equal", "set dropout above 0"]),
    ],
    ids=[
        *("imported", "LSTM", "batch norm", "spectral norm", "a table", "its own generator", "not finite", "elsewhere"),
        *("Python's", "a sum", "pairs", "joined views", "drawn tokens", "a counter", "no noise"),
    ],
)
def test_what_is_wrong_is_named_with_advice(model: Callable[[], nn.Module], loss_fn: Any, told: list[str]) -> None:
    report = checked(model(), loss_fn)
    assert not report.is_fine
    for message in told:
        assert re.search(message, str(report)), str(report)


@pytest.mark.parametrize("batch", [None, {"x": make_rows(4), "positions": torch.zeros(1, 3)}])
def test_copies_whose_losses_are_equal_may_differ(batch: Any) -> None:
    """As they do before a last layer of zeros, which LoRA begins with."""
    model = noisy()
    torch.manual_seed(1)
    nn.init.zeros_(model[-1].weight)

    def loss_fn(model: nn.Module, rows: Any) -> Tensor:
        return model(rows if batch is None else rows["x"]).square().mean()

    assert seqba.check(model.double(), make_rows(4) if batch is None else batch, loss_fn).copies_differ


def test_the_rounding_of_a_loss_in_float32_is_no_fault() -> None:
    def loss_fn(model: nn.Module, rows: Tensor) -> Tensor:
        return (model(rows).float() @ model[-1].weight.float()).square().mean()

    report = checked(noisy(), loss_fn, copies=3)
    assert report.stacked_looped.difference > 1e-11
    assert report.is_fine, str(report)


def test_only_operations_that_draw_without_a_generator_are_noted() -> None:
    x, model = torch.ones(4, 4), nn.Identity()
    query = torch.ones(1, 1, 2, 4)
    with UnkeyedDraws({id(model): "here"}) as doctor:
        torch.native_dropout(x, 0.5, False)
        torch.rrelu(x, 0.1, 0.3, False)
        nn.functional.scaled_dot_product_attention(query, query, query, dropout_p=0.0)
        torch.rand(3, generator=torch.Generator())
        torch.empty(3).normal_(generator=torch.Generator())
        assert doctor.found() == ()
        for _ in range(2):
            torch.native_dropout(x, 0.5, True)
        (lambda module: torch.rand(3))(model)
    assert doctor.found() == (
        UnkeyedDraw("", "", "aten.native_dropout", 2),
        UnkeyedDraw("here", "Identity", "aten.rand", 1),
    )


def test_the_report_is_an_object() -> None:
    report = checked(noisy(Imported()), copies=3)
    assert report.copies == 3
    (draw,) = report.unkeyed
    assert (draw.module, draw.kind, draw.operation, draw.times) == ("1", "Imported", "aten.bernoulli_", 1)
    assert report.stacked_looped.parameter == "0.weight"
    assert report.stacked_looped.difference > 0.01
    assert report.recomputed.agrees
    assert report.repeated.difference == 0
    assert report.copies_differ
    assert len(report.findings) == 1


def test_the_rounding_of_autocast_is_no_fault() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 64), nn.Dropout(0.3), nn.GELU(), nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 8))
    rows = torch.randn(24, 16)

    def loss(model: nn.Module, rows: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return (model(rows).float() @ model[-1].weight.float()).square().mean()

    report = seqba.check(model, rows, loss)
    assert report.stacked_looped is not None
    assert report.stacked_looped.difference > 1e-4  # beyond the rounding of float32
    assert report.is_fine
    not_row_by_row = seqba.check(model, rows, lambda model, rows: loss(model, rows - rows.mean(0)) * len(rows))
    assert not not_row_by_row.is_fine


def test_a_batch_with_leaves_that_are_not_of_rows_is_looked_at_copy_by_copy() -> None:
    batch = {"x": make_rows(), "positions": torch.arange(5)[None]}

    def loss_fn(model: nn.Module, batch: Any) -> tuple[Tensor, float]:
        return model(batch["x"]).square().sum(), 3

    report = checked(noisy(), loss_fn, batch)
    assert report.stacked_looped is None
    assert "batch['positions'] is a tensor (1, 5)" in report.batch_problem
    assert report.recomputed.agrees
    assert report.repeated.agrees
    (finding,) = report.findings
    assert "seqba.copies" in finding.advice


def test_sparse_gradients_are_compared_too() -> None:
    model = nn.Sequential(nn.Embedding(9, 8, sparse=True), nn.Dropout(0.3), nn.Linear(8, 8))
    report = checked(model, batch=torch.randint(9, (4, 5)))
    assert report.is_fine, str(report)


def test_views_side_by_side_are_found_fine() -> None:
    report = checked(noisy(), neighbouring_views)
    assert report.is_fine, str(report)


@pytest.mark.parametrize("positions", [None, torch.zeros(1, 3)])
def test_a_batch_that_the_loss_changes_in_place_is_each_gradients_own(positions: Any) -> None:
    rows = make_rows(4)
    before = rows.clone()
    report = checked(
        noisy(),
        lambda model, batch: square_loss(model, batch["x"].mul_(2)),
        {"x": rows} if positions is None else {"x": rows, "positions": positions},
    )
    assert report.recomputed.agrees
    assert report.repeated.agrees
    assert torch.equal(rows, before)


def test_an_error_in_one_way_to_the_gradient_is_told_of() -> None:
    class Fussy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = noisy()

        def forward(self, x: Tensor) -> Tensor:
            if len(x) > 3:
                raise LookupError("too many rows")
            return self.layers(x)

    report = checked(Fussy())
    assert report.stacked_looped.error == "LookupError: too many rows"
    assert "NO: LookupError: too many rows" in str(report)
    assert not report.is_fine


def test_everything_is_left_as_it_was() -> None:
    model = noisy(nn.BatchNorm1d(5), ByPython()).double().eval()
    model[0].train()
    square_loss(model, make_rows()).backward()
    gradients = [parameter.grad for parameter in model.parameters()]
    values = [None if gradient is None else gradient.clone() for gradient in gradients]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    generators = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    seqba.check(model, make_rows(), square_loss)
    assert [parameter.grad for parameter in model.parameters()] == gradients
    assert all(value is None or torch.equal(one, value) for one, value in zip(gradients, values, strict=True))
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), generators[0])
    assert random.getstate() == generators[1]
    assert np.random.get_state()[1].tolist() == generators[2]  # noqa: NPY002


def test_it_may_be_called_in_the_middle_of_a_run() -> None:
    """Its masks repeat no update's, and none of a later update is taken for a repetition."""
    model = make_model("nn.Dropout")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for update in range(2):
        seqba.check(model, make_rows(), square_loss)
        optimizer.step()
        seqba.merged_gradient(model, make_rows(), square_loss, copies=2, update=update, keyed=True)
        optimizer.step()


def test_buffers_that_a_forward_makes_anew_are_put_back() -> None:
    model = nn.BatchNorm1d(2)
    mean = model.running_mean
    with untouched(model):
        model.running_mean = torch.ones(2)
        mean.add_(1)
    assert model.running_mean is mean
    assert not mean.any()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"copies": 1}, ValueError, "copies is 1; a check compares at least 2"),
        ({"loss_fn": lambda model, rows: {"loss": model(rows)}}, ValueError, r"loss_fn must return.*return its 'loss'"),
        ({"loss_fn": 3}, TypeError, "loss_fn must be a function"),
    ],
)
def test_impossible_arguments_are_refused(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        checked(noisy(), **options)


class Forked(nn.Module):
    """Noise below and above the place where copies begin."""

    def __init__(self) -> None:
        super().__init__()
        self.below = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5))
        self.above = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5))

    def forward(self, x: Tensor) -> Tensor:
        return self.above(seqba.fork(self.below, x))


def test_a_model_that_forks_is_looked_at_as_it_runs() -> None:
    torch.manual_seed(1)
    report = checked(Forked(), forked=True)
    assert report.is_fine, str(report)
    assert "recomputed = not        not looked at" in str(report)
    with pytest.raises(RuntimeError, match="pass forked=True"):
        checked(Forked())
    with pytest.raises(RuntimeError, match=r"called seqba\.fork"):
        checked(noisy(), forked=True)
