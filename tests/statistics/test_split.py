"""The variance split: right where it is known, unbiased, and leaving the model as it was."""

from __future__ import annotations

import json
import math

import pytest
import torch
from noisy_regression import DROPOUT, MEANS, WIDTH, NoisyRegression, examples, loss
from small_network import Network, make_batch, summed_loss
from torch import Tensor, nn

import seqba
from seqba.statistics import Estimate, VarianceSplit, measure_split
from seqba.statistics.gradients import ExampleGradients, Gradient
from seqba.statistics.split import SplitSums

SIGNAL = float(MEANS.square().sum())
BETWEEN = float(WIDTH)
NOISE = (SIGNAL + BETWEEN) * DROPOUT / (1 - DROPOUT)


def drawn(generator: torch.Generator, *, count: int, draws: int, mean: Tensor) -> Tensor:
    """Gradients (count, draws, D) of variance 1 between examples and 2 within, per parameter."""
    between = torch.randn(count, 1, len(mean), generator=generator, dtype=torch.float64)
    within = torch.randn(count, draws, len(mean), generator=generator, dtype=torch.float64)
    return mean + between + math.sqrt(2) * within


def split_of(gradients: Tensor, weight: float = 1.0) -> VarianceSplit:
    sums = SplitSums(gradients.shape[1])
    for each in gradients:
        sums.add(Gradient((gradient[:2], gradient[2:]), weight) for gradient in each)
    return sums.split()


def test_the_three_sums_are_the_analysis_of_variance_of_the_whole_matrix() -> None:
    gradients = drawn(torch.Generator().manual_seed(1), count=7, draws=3, mean=torch.arange(5.0, dtype=torch.float64))
    split = split_of(gradients)
    means = gradients.mean(1)
    within = (gradients - means[:, None]).square().sum() / (7 * 2)
    between = (means - means.mean(0)).square().sum() / 6 - within / 3
    signal = means.mean(0).square().sum() - (means - means.mean(0)).square().sum() / (6 * 7)
    assert split.noise.value == pytest.approx(float(within), rel=1e-12)
    assert split.between.value == pytest.approx(float(between), rel=1e-12)
    assert split.signal.value == pytest.approx(float(signal), rel=1e-12)
    assert split.ratio.value == pytest.approx(float(within / between), rel=1e-12)


@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_estimates_are_unbiased_and_their_errors_are_those_of_repetitions(scale: float) -> None:
    generator = torch.Generator().manual_seed(2)
    mean = scale * torch.arange(6.0, dtype=torch.float64)
    truth = {"signal": float(mean.square().sum()), "between": 6.0, "noise": 12.0}
    repeated = [split_of(drawn(generator, count=60, draws=2, mean=mean)) for _ in range(150)]
    for name, expected in truth.items():
        estimates = torch.tensor([getattr(split, name).value for split in repeated])
        spread = float(estimates.std())
        assert abs(float(estimates.mean()) - expected) < 3 * spread / math.sqrt(150), name
        told = float(torch.tensor([getattr(split, name).error for split in repeated]).square().mean().sqrt())
        most = 2.2 if name == "signal" and scale == 0 else 1.25
        assert 0.8 < told / spread < most, (name, told, spread)
    ratios = torch.tensor([split.ratio.value for split in repeated])
    errors = torch.tensor([split.ratio.error for split in repeated])
    assert 0.7 < float(errors.median() / ratios.std()) < 1.3


def test_regression_with_dropout_has_the_split_that_is_worked_out() -> None:
    split = measure_split(NoisyRegression(), examples(120), loss, draws=4, seed=3)
    for name, expected in (("signal", SIGNAL), ("between", BETWEEN), ("noise", NOISE)):
        estimate = getattr(split, name)
        assert estimate.value == pytest.approx(expected, rel=0.1), name
        assert abs(estimate.value - expected) < 3 * estimate.error, name
    assert split.ratio.value == pytest.approx(NOISE / BETWEEN, rel=0.1)
    assert split.correlation_of_views == pytest.approx(1 - DROPOUT, abs=0.02)
    assert split.correlation_of_examples == pytest.approx(SIGNAL / (SIGNAL + BETWEEN + NOISE), abs=0.03)


def test_the_split_predicts_the_norms_of_batches_with_copies() -> None:
    """Figure 1: E‖ĝ‖² = |G|² + S_b/B + S_w/(M·B), on gradients that the core has merged."""
    model = NoisyRegression()
    for rows, copies in ((4, 1), (4, 8), (16, 2)):
        norms = []
        for update in range(100):
            batch = tuple(torch.cat(parts) for parts in zip(*examples(rows, seed=update), strict=True))
            seqba.merged_gradient(model, batch, loss, copies=copies, update=update)
            norms.append(float(model.weight.grad.square().sum()))  # type: ignore[union-attr]
            model.zero_grad()
        expected = SIGNAL + BETWEEN / rows + NOISE / (copies * rows)
        assert sum(norms) / len(norms) == pytest.approx(expected, rel=0.05), (rows, copies)


def test_examples_of_more_tokens_count_as_they_do_in_a_batch(network: Network) -> None:
    """Without noise ‖ḡ‖² = |G|² + S_b/N is the squared norm of the gradient of all examples in one batch."""
    network.eval()
    still = ExampleGradients(network, _by_tokens)
    rows = [make_batch(number + 1, seed=number) for number in range(6)]
    sums = SplitSums(2)
    for row in rows:
        sums.add(still.clean(row) for _ in range(2))
    split = sums.split()
    whole = tuple(torch.cat(parts) for parts in zip(*rows, strict=True))
    seqba.merged_gradient(network, whole, _by_tokens, copies=1)
    squares = sum(float(parameter.grad.double().square().sum()) for parameter in network.parameters())  # type: ignore[union-attr]
    assert split.mean_weight == 3.5
    assert split.noise.value == pytest.approx(0, abs=1e-6)
    assert split.signal.value + split.between.value / 6 == pytest.approx(squares, rel=1e-5)


def test_the_same_seed_gives_the_same_split_and_another_one_another(network: Network) -> None:
    rows = [make_batch(1, seed=number) for number in range(5)]
    one, again = (measure_split(network, rows, summed_loss, draws=2, seed=7) for _ in range(2))
    assert one == again
    assert measure_split(network, rows, summed_loss, draws=2, seed=8).noise != one.noise


def test_a_foreign_model_is_measured_as_one_of_ours_where_it_is_keyed() -> None:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(7, 16), nn.Dropout(0.5), nn.Linear(16, 5))
    rows = [make_batch(1, seed=number) for number in range(5)]
    with seqba.keyed(model):
        one, again = (measure_split(model, rows, summed_loss, draws=2, seed=7) for _ in range(2))
    assert one == again
    assert one.noise.value > 0
    assert measure_split(model, rows, summed_loss, draws=2, seed=7) != one  # ordinary noise


def test_no_two_draws_share_noise(network: Network) -> None:
    row = make_batch(1)
    seen: list[Tensor] = []
    network.dropout.register_forward_hook(lambda module, inputs, output: seen.append(output == 0))
    measure_split(network, [row, row, row], summed_loss, draws=3)
    first_site = torch.stack([mask.flatten() for mask in seen[::2]])
    assert len(first_site) == 9
    assert len({tuple(mask.tolist()) for mask in first_site}) == 9


def test_the_model_is_afterwards_what_it_was() -> None:
    model = nn.Sequential(
        seqba.nn.GhostBatchNorm2d(3), nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), seqba.nn.Dropout(0.5), nn.Flatten()
    )
    model[3].eval()
    model.append(nn.Linear(16, 2))
    rows = [
        (torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(seed)), torch.tensor([1])) for seed in (1, 2)
    ]
    kept = torch.ones_like(model[5].bias)
    model[5].bias.grad = kept
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    measure_split(model, rows, summed_loss, draws=2)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes
    assert model[5].bias.grad is kept
    assert torch.equal(kept, torch.ones(2))
    assert model[1].weight.grad is None


@pytest.mark.parametrize("statistics", ["own", "running"])
def test_batch_norms_take_the_statistics_that_are_asked_for(statistics: str) -> None:
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 2))
    seen: list[bool] = []
    model[0].register_forward_hook(lambda module, inputs, output: seen.append(module.training))
    gradients = ExampleGradients(model, summed_loss, batch_norm=statistics)  # type: ignore[arg-type]
    row = (torch.randn(1, 3, 2, 2, generator=torch.Generator().manual_seed(1)), torch.tensor([1]))
    gradients.noisy(row, 0)
    gradients.clean(row)
    assert seen == [statistics == "own"] * 2


def test_a_split_survives_json() -> None:
    split = measure_split(NoisyRegression(), examples(5), loss, draws=2)
    assert VarianceSplit.from_plain(json.loads(json.dumps(split.plain(), allow_nan=False))) == split
    without = VarianceSplit(Estimate(1.0, 0.1), Estimate(-0.1, 0.1), Estimate(1.0, 0.1), Estimate(math.inf), 2, 2)
    again = VarianceSplit.from_plain(json.loads(json.dumps(without.plain(), allow_nan=False)))
    assert again.ratio.value == math.inf
    assert math.isnan(again.ratio.error)


def test_two_examples_give_the_mean_gradient_no_standard_error() -> None:
    """There is one pair of them: an error of 0 would be certainty."""
    split = measure_split(NoisyRegression(), examples(2), loss, draws=2)
    assert math.isnan(split.signal.error)
    assert split.noise.error > 0
    assert measure_split(NoisyRegression(), examples(3), loss, draws=2).signal.error > 0


def test_what_can_not_be_split_is_refused(network: Network) -> None:
    rows = [make_batch(1, seed=number) for number in range(2)]
    with pytest.raises(ValueError, match="draws is 1; it takes at least 2"):
        measure_split(network, rows, summed_loss, draws=1)
    with pytest.raises(ValueError, match="examples are 1; it takes at least 2"):
        measure_split(network, rows[:1], summed_loss)
    with torch.no_grad():
        network.enter.weight.fill_(math.nan)
    with pytest.raises(ValueError, match="not finite"):
        measure_split(network, rows, summed_loss, draws=2)
    with pytest.raises(ValueError, match="no parameter"):
        measure_split(nn.Identity(), rows, summed_loss)
    with pytest.raises(ValueError, match="choose own or running"):
        ExampleGradients(network, summed_loss, batch_norm="batch")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="copies"):
        next(ExampleGradients(network, summed_loss).forked(rows[0], 0, copies=0))


def _by_tokens(model: nn.Module, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, int]:
    return summed_loss(model, batch)
