"""Correlations of single-example gradients: the formula of ρ(T₁, T₂), and what they are where it can be worked out."""

from __future__ import annotations

import math

import pytest
import torch
from noisy_regression import DROPOUT, MEANS, WIDTH, NoisyRegression, examples, loss
from small_network import Network, make_batch, summed_loss
from torch import nn

from seqba.models.resnet import resnet_cifar
from seqba.statistics import Gradient, Related, measure_correlations, pearson


def test_views_correlate_as_the_formula_says() -> None:
    """ρ(T₁, T₂) = (|G|² + S_b)/(|G|² + S_b + S_w), here 1 − p; of clean gradients ρ = |G|²/(|G|² + S_b)."""
    rows = examples(60)
    related = [Related(row, (("other_example", other),)) for row, other in zip(rows[::2], rows[1::2], strict=True)]
    found = measure_correlations(NoisyRegression(), related, loss)
    signal = float(MEANS.square().sum())
    total = (signal + WIDTH) / (1 - DROPOUT)
    assert list(found) == ["clean_view", "views", "other_example"]
    assert found["views"].median == pytest.approx((signal + WIDTH) / total, abs=0.02)
    assert found["clean_view"].median == pytest.approx(math.sqrt((signal + WIDTH) / total), abs=0.02)
    assert found["other_example"].median == pytest.approx(signal / (signal + WIDTH), abs=0.03)
    assert found["views"].deviation < found["views"].spread < 0.05


def test_pearson_is_numpys() -> None:
    generator = torch.Generator().manual_seed(1)
    one, other = torch.randn(2, 50, generator=generator) + 3
    expected = float(torch.corrcoef(torch.stack([one, other]))[0, 1])
    parts = (Gradient((x[:20].view(4, 5), x[20:]), 1.0) for x in (one, other))
    assert pearson(*parts) == pytest.approx(expected, abs=1e-6)
    assert math.isnan(pearson(Gradient((one,), 1.0), Gradient((torch.zeros(50),), 1.0)))


def test_a_gradient_correlates_fully_with_itself_where_there_is_no_noise() -> None:
    torch.manual_seed(1)
    network = Network(dropout=0.0)
    rows = [make_batch(1, seed=number) for number in range(3)]
    found = measure_correlations(network, [Related(row) for row in rows], summed_loss)
    assert found["clean_view"].values == found["views"].values == pytest.approx((1.0, 1.0, 1.0), abs=1e-12)


def test_values_that_are_not_numbers_are_left_out_and_told_as_null(network: Network) -> None:
    with torch.no_grad():
        network.leave.weight.zero_()
        network.leave.bias.copy_(torch.tensor([1e4, 0, 0, 0, 0]))
    right = (make_batch(1)[0], torch.tensor([0]))
    found = measure_correlations(network, [Related(right)], summed_loss)["views"]
    assert math.isnan(found.median)
    assert found.plain() == {
        "median": None,
        "median_absolute_deviation": None,
        "standard_deviation": None,
        "values": [None],
    }


def test_a_fresh_network_correlates_by_class_alone() -> None:
    """Table 1 at epoch 0: same class near 1, another −1/(K − 1)."""
    torch.manual_seed(1)
    model = resnet_cifar(10, depth=20, norm=nn.BatchNorm2d)
    generator = torch.Generator().manual_seed(2)
    pictures = [torch.rand(1, 3, 32, 32, generator=generator) for _ in range(12)]

    def row(number: int, label: int) -> tuple[torch.Tensor, torch.Tensor]:
        return pictures[number], torch.tensor([label])

    related = [
        Related(row(number, 3), (("same_class", row(number + 1, 3)), ("other_class", row(number + 2, 4))))
        for number in range(8)
    ]
    found = measure_correlations(model, related, summed_loss)
    assert found["same_class"].median > 0.97
    assert found["other_class"].median == pytest.approx(-1 / 9, abs=0.02)


def test_no_example_at_all_is_refused(network: Network) -> None:
    with pytest.raises(ValueError, match="no examples to correlate"):
        measure_correlations(network, [], summed_loss)
