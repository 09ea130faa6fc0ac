"""Where copies lie in a draw, where its shape alone doesn't tell."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from foreign_models import LENGTH, MODELS, Around, Attention, gradient, make_model, make_rows, square_loss
from small_network import relative_error
from torch import Tensor, nn

import seqba
from seqba.checking.ambiguous import AmbiguousDraw

SHAPED = ".* draws a tensor of shape"

# Several models here draw for all rows alone, so that their copies are equal.
pytestmark = pytest.mark.filterwarnings("ignore:nothing drew noise but what copies share")


def gradients(model: nn.Module, *, rows: int, copies: int) -> tuple[Tensor, Tensor]:
    """Stacked and looped."""
    found = []
    for plan in ("stacked", "looped"):
        model.zero_grad()
        seqba.merged_gradient(model, make_rows(rows), square_loss, copies=copies, update=3, keyed=True, plan=plan)
        found.append(gradient(model))
    return found[0], found[1]


def merged(model: nn.Module, *, rows: int, copies: int, plan: Any) -> None:
    seqba.merged_gradient(model, make_rows(rows), square_loss, copies=copies, update=rows, keyed=True, plan=plan)


@pytest.mark.parametrize("plan", ["stacked", "looped"])
def test_a_batch_without_rows_is_no_error(plan: Any) -> None:
    model = around(lambda x: x * torch.rand_like(x) + torch.rand(5, 8))
    step = seqba.merged_gradient(
        model, make_rows(0), lambda model, rows: model(rows).sum(), copies=2, keyed=True, plan=plan
    )
    assert step.loss == 0


class TimeFirst(nn.Module):
    """Dropout on (T, B, D) in a layer that may say so."""

    def __init__(self, *, batch_first: bool | None) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)
        self.dropout = nn.Dropout(0.3)
        if batch_first is not None:
            self.batch_first = batch_first

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.layer(x.transpose(0, 1))).transpose(0, 1)


def time_first(**options: Any) -> nn.Module:
    torch.manual_seed(1)
    return TimeFirst(**options).double()


def around(noisy: Callable[[Tensor], Tensor]) -> nn.Module:
    torch.manual_seed(1)
    return Around(lambda module, x: noisy(x)).double()


@pytest.mark.parametrize(
    "make",
    [
        lambda: make_model("Transformer, time first"),
        lambda: make_model("Transformer"),
        lambda: time_first(batch_first=False),
        lambda: Attention(need_weights=True).double(),
        lambda: Attention(need_weights=False).double(),
    ],
    ids=["Transformer, time first", "Transformer", "time first", "attention with weights", "attention"],
)
@pytest.mark.parametrize(("rows", "copies"), [(1, LENGTH), (1, 2), (5, 1), (4, 2)])
def test_layers_that_say_where_their_rows_are_have_it_so_at_any_length(
    make: Callable[[], nn.Module], rows: int, copies: int
) -> None:
    """As many rows as places, as many rows as heads, and neither."""
    stacked, looped = gradients(make(), rows=rows, copies=copies)
    assert relative_error(stacked, looped) < 1e-12


def test_time_first_is_not_known_where_nothing_says_so_but_it_is_seen() -> None:
    model = time_first(batch_first=None)
    stacked, looped = gradients(model, rows=1, copies=LENGTH)
    assert relative_error(stacked, looped) > 1e-3
    # Two copies of two rows, whose gradients are right: no length of 5 is a multiple of 4.
    report = seqba.check(model, make_rows(2), square_loss)
    assert report.stacked_looped is not None
    assert report.stacked_looped.agrees
    assert report.ambiguous == (AmbiguousDraw("dropout", (LENGTH, 2, 8), is_time_first=True),)
    assert "batch_first = False" in str(report)
    assert seqba.check(time_first(batch_first=False), make_rows(2), square_loss).is_fine
    assert seqba.check(model, make_rows(3), square_loss).is_fine  # six rows are never as many as five places


def test_numbers_for_all_rows_are_told_of_where_looped_passes_take_them_for_rows() -> None:
    def noisy(x: Tensor) -> Tensor:
        return x * torch.rand(6)[0]

    with pytest.warns(
        UserWarning, match=r"^the model itself.* draws a tensor of shape \(6,\) for all rows.* of 3 rows"
    ):
        stacked, looped = gradients(around(noisy), rows=3, copies=4)
    assert relative_error(stacked, looped) > 1e-3
    with warnings.catch_warnings():
        warnings.filterwarnings("error", SHAPED)
        stacked, looped = gradients(around(noisy), rows=4, copies=4)
    assert relative_error(stacked, looped) < 1e-12
    report = seqba.check(around(noisy), make_rows(4), square_loss)
    assert report.ambiguous == (AmbiguousDraw("", (6,), is_time_first=False),)
    assert "in a batch whose rows divide 6" in str(report)
    assert seqba.check(around(noisy), make_rows(7), square_loss).ambiguous == ()


class Weights(nn.Module):
    """A layer whose weights have noise, as in fastai's WeightDropout or a noisy network."""

    def __init__(self, noisy: Callable[[nn.Parameter], Tensor]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(24, 8))
        self.noisy = noisy

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.noisy(self.weight).T


@pytest.mark.parametrize(
    "noisy",
    [
        lambda weight: nn.functional.dropout(weight),
        lambda weight: nn.functional.alpha_dropout(weight, training=True),
        lambda weight: torch.native_dropout(weight, 0.5, True)[0],
        lambda weight: weight + torch.randn_like(weight),
    ],
    ids=["dropout", "alpha dropout", "native dropout", "added"],
)
def test_noise_of_a_weight_is_told_of_where_copies_share_it(noisy: Any) -> None:
    torch.manual_seed(1)
    model = Weights(noisy).double()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        merged(model, rows=3, copies=4, plan="looped")
    model.zero_grad()
    with pytest.warns(UserWarning, match=r"^the model itself.* draws a tensor .* for a weight.*WeightDropout"):
        merged(model, rows=3, copies=4, plan="stacked")


def test_noise_of_a_parameter_that_copies_share_in_every_plan_is_not_told_of() -> None:
    """A position for each place, say: (1, T, D)."""
    torch.manual_seed(1)
    model = around(lambda x: x)
    model.places = nn.Parameter(torch.randn(1, LENGTH, 8).double())

    def loss_fn(model: nn.Module, rows: Tensor) -> Tensor:
        return square_loss(model, rows * torch.rand_like(rows) + nn.functional.dropout(model.places))

    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        for plan in ("stacked", "looped"):
            model.zero_grad()
            seqba.merged_gradient(model, make_rows(3), loss_fn, copies=4, keyed=True, plan=plan, update=3)


def test_the_warning_comes_once_for_each_model() -> None:
    model = around(lambda x: x * torch.rand(6)[0])
    with pytest.warns(UserWarning, match="for all rows") as warned:
        gradients(model, rows=3, copies=4)
    assert [warning.filename for warning in warned] == [__file__]
    with warnings.catch_warnings():
        warnings.filterwarnings("error", SHAPED)
        gradients(model, rows=3, copies=4)


def test_numbers_for_all_rows_that_are_as_many_as_the_stacked_rows_are_told_of_once_rows_change() -> None:
    """(12,) in batches of 3 rows and 2 copies is cut in two, as numbers of rows would be; batches of 5 rows tell."""
    model = around(lambda x: x * torch.rand(12)[0])
    with warnings.catch_warnings():
        warnings.filterwarnings("error", SHAPED)
        merged(model, rows=3, copies=2, plan="stacked")
    with pytest.warns(UserWarning, match=r"^the model itself.* shape \(12,\) in a pass of 6 rows .* in one of 10,"):
        merged(model, rows=5, copies=2, plan="stacked")
    # Passes of unlike numbers of copies tell at once.
    with pytest.warns(UserWarning, match=r"shape \(12,\) in a pass of 6 rows .* in one of 3,"):
        merged(around(lambda x: x * torch.rand(12)[0]), rows=3, copies=3, plan=2)


def test_time_first_that_was_taken_for_rows_first_is_told_of() -> None:
    model = time_first(batch_first=None)
    merged(model, rows=2, copies=2, plan="stacked")
    with pytest.warns(UserWarning, match="^dropout draws a tensor of shape"):
        merged(model, rows=1, copies=LENGTH, plan="stacked")


def test_a_draw_for_all_rows_of_a_single_row_is_told_of_where_it_is_of_rows_by_itself() -> None:
    model = around(lambda x: x + nn.functional.dropout(torch.ones(1, LENGTH, 8, dtype=x.dtype), 0.5))
    with pytest.warns(UserWarning, match=r"shape \(1, 5, 8\) for all rows.* of 1 rows"):
        stacked, looped = gradients(model, rows=1, copies=2)
    assert relative_error(stacked, looped) > 1e-3


@pytest.mark.parametrize("name", MODELS)
def test_what_shapes_tell_is_never_warned_of(name: str) -> None:
    model = make_model(name)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", SHAPED)
        for update, (rows, plan) in enumerate([(3, "stacked"), (4, "looped"), (2, "stacked"), (7, 3), (6, "looped")]):
            seqba.merged_gradient(model, make_rows(rows), square_loss, copies=4, update=update, keyed=True, plan=plan)


def test_one_number_for_all_rows_is_never_taken_for_rows() -> None:
    model = around(lambda x: x * torch.rand([]))
    for rows in (1, 2):
        stacked, looped = gradients(model, rows=rows, copies=3)
        assert relative_error(stacked, looped) < 1e-12
    assert seqba.check(model, make_rows(1), square_loss).ambiguous == ()


class Table(nn.Module):
    """Dropout on a table of positions without a dimension of rows, as DeBERTa has it."""

    def __init__(self) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.randn(LENGTH + 3, 8))
        self.layer = nn.Linear(8, 8)
        self.dropout = nn.Dropout(0.3)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) + self.dropout(self.positions)[:LENGTH]


class Chosen(Table):
    """Rows that a value of theirs chooses, as a mixture of experts has them."""

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.layer(x.flatten(0, 1)[1:]))


@pytest.mark.parametrize("kind", [Table, Chosen])
def test_rows_that_cannot_be_told_in_a_shape_are_an_error_that_names_the_module(kind: type[nn.Module]) -> None:
    torch.manual_seed(1)
    model = kind().double()
    with pytest.raises(ValueError, match=r'^dropout draws noise of shape .* 3 copies.*plan="looped"'):
        merged(model, rows=2, copies=3, plan="stacked")
    merged(model, rows=2, copies=3, plan="looped")
