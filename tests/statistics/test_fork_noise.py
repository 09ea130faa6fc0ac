"""The share of the noise above a fork: right where it is known, and leaving the model as it was."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from forked_network import ForkedNetwork, forked_loss
from torch import Tensor, nn

import seqba
from seqba.statistics import measure_noise_above

WIDTH = 400


class Product(nn.Module):
    """w · A(B(x)), A and B being dropouts above and below the fork: its gradient by w is A(B(x)) itself."""

    def __init__(self, below: float, above: float, dropout: type[nn.Module] = seqba.nn.Dropout) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(WIDTH, dtype=torch.float64))
        self.below, self.above = dropout(below), dropout(above)

    def forward(self, x: Tensor) -> Tensor:
        return self.above(seqba.fork(self.below, x)) @ self.weight


def examples(count: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return list(torch.randn(count, 1, WIDTH, generator=generator, dtype=torch.float64))


def mean(model: nn.Module, x: Tensor) -> Tensor:
    return model(x).mean()


@pytest.mark.parametrize("dropout", [seqba.nn.Dropout, nn.Dropout])
@pytest.mark.parametrize(("below", "above"), [(0.5, 0.5), (0.2, 0.5), (0.5, 0.1), (0.5, 0.0), (0.0, 0.5)])
def test_the_share_is_the_one_that_is_worked_out(below: float, above: float, dropout: type[nn.Module]) -> None:
    """Of an element x: E_B Var_A = x²/(1 − b) · a/(1 − a), and Var_B E_A = x² · b/(1 − b)."""
    of_above, of_below = above / (1 - above) / (1 - below), below / (1 - below)
    share = measure_noise_above(Product(below, above, dropout), examples(60), mean, seed=2)
    assert share.value == pytest.approx(of_above / (of_above + of_below), abs=0.02)
    assert abs(share.value - of_above / (of_above + of_below)) <= 3.5 * share.error + 1e-12


def test_its_error_is_that_of_repetitions() -> None:
    scaled = [x * (1 + number % 5) for number, x in enumerate(examples(30))]  # long gradients don't make it less sure
    found = [measure_noise_above(Product(0.3, 0.3), scaled, mean, seed=seed) for seed in range(40)]
    spread = torch.tensor([share.value for share in found]).std()
    assert 0.7 < torch.tensor([share.error for share in found]).mean() / spread < 1.4


def test_the_model_is_left_as_it_was() -> None:
    torch.manual_seed(1)
    model = ForkedNetwork().eval()
    model.leave.bias.grad = torch.ones(5)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    calls: list[int] = []
    batches = [(torch.randn(1, 7), torch.tensor([number])) for number in range(3)]
    share = measure_noise_above(model, batches, forked_loss, progress=lambda: calls.append(1))
    assert 0 < share.value < 1
    assert len(calls) == 3
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(model.leave.bias.grad, torch.ones(5))
    assert model.enter.weight.grad is None
    assert not model.training
    assert share == measure_noise_above(model, batches, forked_loss)


def not_finite(model: nn.Module, x: Tensor) -> Tensor:
    return model(x).mean() * float("nan")


@pytest.mark.parametrize(
    ("model", "count", "loss_fn", "error", "message"),
    [
        (Product(0.5, 0.5), 1, mean, ValueError, "the examples are 1; it takes at least 2"),
        (Product(0.0, 0.0), 2, mean, ValueError, "there is no noise to share out"),
        (Product(0.5, 0.5), 2, not_finite, ValueError, "a gradient is not finite"),
        (nn.Linear(WIDTH, 1).double(), 2, mean, RuntimeError, "neither the model nor the loss called seqba.fork"),
    ],
)
def test_what_has_no_share_is_refused(
    model: nn.Module, count: int, loss_fn: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        measure_noise_above(model, examples(count), loss_fn)
