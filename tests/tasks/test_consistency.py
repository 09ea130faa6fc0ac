"""Consistency: how copies diverge, in the loss of a task."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from seqba.core import Noise, grid_gradient, noise_context
from seqba.errors import UserError
from seqba.models.builders import build_transformer
from seqba.models.families import resolve_transformer
from seqba.models.options import TransformerOptions
from seqba.noise.compare import Comparison
from seqba.tasks.consistency import with_distance, with_divergence
from seqba.tasks.options import BatchOptions, CriterionOptions
from seqba.tasks.text_options import TranslationOptions
from seqba.tasks.translation import Translation


def open_task(data: Path, alpha: float) -> Translation:
    criterion = CriterionOptions(
        criterion="label_smoothed_cross_entropy_with_rdrop", label_smoothing=0.1, rdrop_alpha=alpha
    )
    batches = BatchOptions(max_tokens=60)
    options = TranslationOptions()
    return Translation(str(data), options, batches, criterion, seed=1, max_positions=(64, 64))


def test_the_loss_is_the_mean_cross_entropy_and_half_alpha_times_the_divergence(reversal: Path) -> None:
    """fairseq divides CE_1 + CE_2 + α·½(KL + KL) by the tokens of one copy, which is twice this."""
    steps, gradients = [], []
    for alpha in (0.0, 5.0, 10.0):
        task = open_task(reversal, alpha)
        torch.manual_seed(1)
        sizes = TransformerOptions(encoder_layers=1, decoder_layers=1, dropout=0.3)
        words = len(task.source_dictionary)
        model = build_transformer(resolve_transformer("transformer_tiny", sizes), words, words)
        batch = task.epoch(1)[0]
        weight = 2 * task.weight(batch)
        options = {"copies": 2, "weight": weight, "plan": "stacked", "seed": 1, "compared": alpha > 0}
        steps.append(grid_gradient(model, [batch], task.loss, **options))
        gradients.append(torch.cat([each.grad.flatten() for each in model.parameters() if each.grad is not None]))
    plain, once, twice = steps
    assert "divergence" not in plain.sums
    divergence = once.sums["divergence"] / once.weight  # per token
    assert divergence > 0.01
    assert once.loss == pytest.approx(plain.loss + 2.5 * divergence, rel=1e-5)
    assert twice.loss == pytest.approx(plain.loss + 5 * divergence, rel=1e-5)
    assert torch.allclose(gradients[2] - gradients[0], 2 * (gradients[1] - gradients[0]), atol=1e-5)
    assert not torch.allclose(gradients[0], gradients[1], atol=1e-3)


@pytest.mark.parametrize("plan", ["looped", 2, "auto"])
@pytest.mark.parametrize("place", [None, "encoder", "decoder-layer-2"])
def test_every_plan_makes_the_gradient_of_the_stacked_one(reversal: Path, plan: int | str, place: str | None) -> None:
    task = open_task(reversal, 5.0)
    torch.manual_seed(1)
    sizes = TransformerOptions(
        encoder_layers=1, decoder_layers=2, dropout=0.3, attention_dropout=0.2, activation_dropout=0.1
    )
    words = len(task.source_dictionary)
    model = build_transformer(resolve_transformer("transformer_tiny", sizes), words, words)
    if place is not None:
        model.fork_at(place)
    planned = task.epoch(1)
    batches = [planned[0], planned[1]]
    found = []
    for each in ("stacked", plan):
        weight = 3 * sum(map(task.weight, batches))
        options = {"copies": 3, "weight": weight, "plan": each, "seed": 1, "forked": place is not None}
        step = grid_gradient(model, batches, task.loss, **options, compared=True)
        found.append((torch.cat([each.grad.flatten() for each in model.parameters() if each.grad is not None]), step))
        model.zero_grad()
    (stacked, expected), (gradient, step) = found
    assert float((gradient - stacked).norm() / stacked.norm()) < 1e-5
    assert step.sums == pytest.approx(expected.sums, rel=1e-5)
    assert step.sums["divergence"] > 1
    assert step.loss == pytest.approx(expected.loss, rel=1e-5)


def test_validation_has_no_divergence(reversal: Path) -> None:
    task = open_task(reversal, 5.0)
    words = len(task.source_dictionary)
    model = build_transformer(resolve_transformer("transformer_tiny", TransformerOptions()), words, words).eval()
    batch = task.validation("valid")[0]
    loss, _, sums = task.loss(model, batch)
    assert set(sums) == {"nll"}
    assert torch.equal(loss, open_task(reversal, 0.0).loss(model, batch)[0])


def test_a_bias_of_the_output_is_in_the_divergence() -> None:
    generator = torch.Generator().manual_seed(4)
    hidden, weight, bias = (torch.randn(*size, generator=generator).double() for size in ((6, 3), (5, 3), (5,)))
    given = [tensor.clone().requires_grad_() for tensor in (hidden, weight, bias)]
    with noise_context(Noise(0, 0, 0, range(2), comparison=Comparison(2))):
        loss, sums = with_divergence(torch.zeros(()), torch.zeros(()), given[0], given[1], 2.5, bias=given[2])
    loss.backward()
    plain = [tensor.clone().requires_grad_() for tensor in (hidden, weight, bias)]
    one, other = (plain[0] @ plain[1].T + plain[2]).log_softmax(1).chunk(2)
    divergence = ((one.exp() - other.exp()) * (one - other)).sum()  # 2 copies: M · J = KL + KL
    (2.5 * divergence).backward()
    torch.testing.assert_close(sums["divergence"], divergence.detach())
    torch.testing.assert_close([each.grad for each in given], [each.grad for each in plain])


def test_fairseqs_alpha_is_twice_the_consistency() -> None:
    named = CriterionOptions(criterion="label_smoothed_cross_entropy_with_rdrop", rdrop_alpha=5.0)
    assert named.difference_weight == CriterionOptions(consistency=2.5).difference_weight == 2.5
    with pytest.raises(UserError, match=r"one term, and --rdrop-alpha 5 is --consistency 2\.5: give one of them"):
        CriterionOptions(criterion="label_smoothed_cross_entropy_with_rdrop", rdrop_alpha=5.0, consistency=1.0)


def test_the_distance_is_added_in_an_update_alone() -> None:
    generator = torch.Generator().manual_seed(3)
    hidden, weight, zero = (
        torch.randn(6, 3, generator=generator),
        torch.randn(5, 3, generator=generator),
        torch.zeros(()),
    )
    assert with_distance(zero, zero, hidden, weight, 2.0)[0] == 0
    with noise_context(Noise(0, 0, 0, range(3), comparison=Comparison(3))):
        loss, sums = with_distance(zero, zero, hidden, weight, 2.0)
        assert set(with_distance(zero, zero, hidden, weight, 0.0)[1]) == {"nll"}
    assert loss == 2 * sums["distance"] > 0
