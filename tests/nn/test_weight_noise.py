"""Noise in weight space: one mask per copy, or one for all, and which rows and times share it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import seqba
from seqba.core import Noise, noise_context


def masks(copies: tuple[int, ...], *, shared: bool = False, p: float = 0.5) -> Tensor:
    module = seqba.nn.WeightDropout(p, shared=shared)
    with noise_context(Noise(1, 2, 3, copies)):
        kept = module(torch.ones(12, 9))
    assert kept is not None
    return kept


def test_each_copy_draws_its_own_weight_mask_in_any_company() -> None:
    together = masks((0, 1, 2))
    assert together.shape == (3, 12, 9)
    assert together.dtype == torch.int8
    assert len({tuple(mask.flatten().tolist()) for mask in together}) == 3
    for copy in range(3):
        assert torch.equal(together[copy], masks((copy,))[0])


def test_a_shared_weight_mask_is_one_whatever_the_plan() -> None:
    assert masks((0, 1, 2), shared=True).shape == (1, 12, 9)
    assert torch.equal(masks((0, 1, 2), shared=True), masks((2,), shared=True))


def test_weights_are_dropped_with_the_probability() -> None:
    module = seqba.nn.WeightDropout(0.25)
    with noise_context(Noise(0, 0, 0, (0,))):
        kept = module(torch.ones(400, 250))
    assert kept is not None
    assert kept.double().mean().item() == pytest.approx(0.75, abs=0.01)


def test_outside_an_update_one_mask_is_drawn_afresh_for_each_forward() -> None:
    torch.manual_seed(1)
    module = seqba.nn.WeightDropout(0.5)
    first, second = module(torch.ones(12, 9)), module(torch.ones(12, 9))
    assert first is not None
    assert second is not None
    assert first.shape == (1, 12, 9)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("module", [seqba.nn.WeightDropout(0.5), seqba.nn.WordDropout(0.5, 8)])
def test_evaluation_draws_nothing(module: nn.Module) -> None:
    module.eval()
    arguments = (torch.ones(4, 3),) if isinstance(module, seqba.nn.WeightDropout) else (torch.ones(2, 3, 4), WORDS)
    result = module(*arguments)
    assert result is None or torch.equal(result, arguments[0])


WORDS = torch.tensor([[1, 2, 1], [2, 1, 7]])


def dropped_words(copies: tuple[int, ...], *, shared: bool = False) -> Tensor:
    """Which factor each of a copy's words got: (k, 2, 40)."""
    words = torch.randint(0, 30, (2, 40), generator=torch.Generator().manual_seed(0))
    module = seqba.nn.WordDropout(0.4, 30, shared=shared)
    with noise_context(Noise(1, 2, 3, copies)):
        y = module(torch.ones(2 * len(copies), 40, 5), words.repeat(len(copies), 1))
    assert torch.equal(y, y[..., :1].expand_as(y))  # a word's whole embedding, or nothing of it
    factors = y[..., 0].view(len(copies), 2, 40)
    for copy in factors:
        for word in range(30):
            assert len(copy[words == word].unique()) <= 1  # every occurrence, in every row
    return factors


def test_a_dropped_word_is_gone_everywhere_in_its_copy_and_kept_ones_are_scaled() -> None:
    factors = dropped_words((0, 1, 2))
    assert sorted(factors.unique().tolist()) == pytest.approx([0, 1 / 0.6], rel=1e-4)


def test_each_copy_drops_its_own_words_in_any_company() -> None:
    together = dropped_words((0, 1, 2))
    assert len({tuple(copy.flatten().tolist()) for copy in together}) == 3
    for copy in range(3):
        assert torch.equal(together[copy], dropped_words((copy,))[0])


def test_copies_that_share_drop_the_same_words() -> None:
    together = dropped_words((0, 1), shared=True)
    assert torch.equal(together[0], together[1])
    assert torch.equal(together[0], dropped_words((1,), shared=True)[0])


def test_outside_an_update_words_are_dropped_too() -> None:
    torch.manual_seed(2)
    y = seqba.nn.WordDropout(0.5, 200)(torch.ones(1, 200, 3), torch.arange(200).view(1, 200))
    assert y[..., 0].eq(0).double().mean().item() == pytest.approx(0.5, abs=0.15)


@pytest.mark.parametrize("p", [-0.1, 1.0])
def test_impossible_probabilities_are_refused(p: float) -> None:
    with pytest.raises(ValueError, match="must be in"):
        seqba.nn.WeightDropout(p)
    with pytest.raises(ValueError, match="must be in"):
        seqba.nn.WordDropout(p, 10)
