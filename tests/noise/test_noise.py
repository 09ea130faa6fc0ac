"""Keyed draws: what they depend on, what they don't, and how they are distributed."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn

from seqba.noise.context import current_noise, noise_context
from seqba.noise.noise import Noise

CPU = torch.device("cpu")


def draw(
    *, seed: int = 0, update: int = 0, micro_batch: int = 0, copies: tuple[int, ...] = (0,), rows: int = 8
) -> Tensor:
    noise = Noise(seed, update, micro_batch, copies)
    return noise.keep_mask(object(), (len(copies) * rows, 33), 0.5, CPU)


def test_every_part_of_the_key_matters() -> None:
    draws = [draw(), draw(seed=1), draw(update=1), draw(micro_batch=1), draw(copies=(1,))]
    for one, other in itertools.combinations(draws, 2):
        assert not torch.equal(one, other)
        # Independent fair masks agree in half of their places: 264 draws, five standard deviations.
        assert abs((one == other).float().mean().item() - 0.5) < 0.16


def test_the_same_key_draws_the_same() -> None:
    assert torch.equal(draw(seed=5, update=6, micro_batch=7), draw(seed=5, update=6, micro_batch=7))


def test_a_copy_draws_the_same_in_any_company() -> None:
    together = draw(copies=(0, 1, 2, 3)).view(4, 8, 33)
    for number in range(4):
        assert torch.equal(together[number], draw(copies=(number,)))
    assert torch.equal(together[1:3].flatten(0, 1), draw(copies=(1, 2)))


def test_sites_and_calls_differ() -> None:
    model = nn.ModuleDict({"a": nn.Identity(), "b": nn.Identity()})
    noise = Noise(0, 0, 0, (0,), {id(module): name for name, module in model.named_modules()})
    masks = [noise.keep_mask(model[name], (8, 8), 0.5, CPU) for name in ("a", "b", "a", "b")]
    for one, other in itertools.combinations(masks, 2):
        assert not torch.equal(one, other)


def test_a_site_is_its_name_and_not_its_place_in_memory() -> None:
    first, second = nn.Identity(), nn.Identity()
    one = Noise(0, 0, 0, (0,), {id(first): "layer.dropout"}).keep_mask(first, (8, 8), 0.5, CPU)
    other = Noise(0, 0, 0, (0,), {id(second): "layer.dropout"}).keep_mask(second, (8, 8), 0.5, CPU)
    assert torch.equal(one, other)


@pytest.mark.parametrize("probability", [0.1, 0.25, 0.5, 0.9])
def test_each_element_is_dropped_with_the_probability_and_by_itself(probability: float) -> None:
    kept = Noise(3, 1, 4, (0, 1)).keep_mask(object(), (512, 1001), probability, CPU).double()
    spread = (probability * (1 - probability) / kept.numel()) ** 0.5
    assert kept.mean().item() == pytest.approx(1 - probability, abs=5 * spread)
    centred = kept - kept.mean()
    for lag in (1, 2, 3, 4, 1001):  # neighbours within a 64-bit word, and from row to row
        flat = centred.flatten()
        correlation = (flat[:-lag] * flat[lag:]).mean() / centred.var()
        assert abs(correlation.item()) < 5 / kept.numel() ** 0.5


def test_certainty_of_keeping() -> None:
    assert Noise(0, 0, 0, (0,)).keep_mask(object(), (4, 5), 0.0, CPU).all()


def test_copies_with_different_numbers_of_rows_draw_what_each_draws_alone() -> None:
    noise = Noise(0, 0, 0, (0, 1, 2), copies_differ=True)
    left = torch.arange(3 * 8).view(3 * 2, 4) % 7 > 0  # (k·B, T): 2 rows of each copy, a few of whose places are left
    rows = noise.part_rows(left)
    assert rows == tuple(left.view(3, -1).sum(1).tolist())
    assert len(set(rows)) > 1
    parts = noise.keep_mask(object(), (sum(rows), 33), 0.5, CPU, rows=rows).split(rows)
    for copy, (part, count) in enumerate(zip(parts, rows, strict=True)):
        assert torch.equal(part, draw(copies=(copy,), rows=count))
    with pytest.raises(ValueError, match="aren't the rows of its copies"):
        noise.keep_mask(object(), (sum(rows) + 1, 33), 0.5, CPU, rows=rows)


@pytest.mark.parametrize(("copies", "differ"), [((0, 1), False), ((1,), True)])
def test_copies_of_the_same_rows_and_one_alone_have_no_parts(copies: tuple[int, ...], differ: bool) -> None:
    assert Noise(0, 0, 0, copies, copies_differ=differ).part_rows(torch.ones(4, 3, dtype=torch.bool)) is None


def test_rows_that_no_copies_can_share_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(5, 2\) in a pass of 3 copies.*a multiple of 3"):
        Noise(0, 0, 0, (0, 1, 2)).keep_mask(object(), (5, 2), 0.5, CPU)


def test_contexts_nest_and_end() -> None:
    outer, inner = Noise(0, 0, 0, (0,)), Noise(1, 0, 0, (0,))
    assert current_noise() is None
    with noise_context(outer):
        with noise_context(inner):
            assert current_noise() is inner
        with noise_context(None):
            assert current_noise() is None
        assert current_noise() is outer
    assert current_noise() is None


def test_a_shared_draw_is_the_same_for_all_copies_in_any_company_and_differs_from_their_own() -> None:
    def shared(copies: tuple[int, ...], micro_batch: int = 0) -> Tensor:
        return Noise(0, 0, micro_batch, copies).keep_mask(object(), (7, 33), 0.5, CPU, shared=True)

    assert torch.equal(shared((0,)), shared((0, 1, 2)))
    assert torch.equal(shared((0,)), shared((3,)))
    assert not torch.equal(shared((0,)), shared((0,), micro_batch=1))
    own = Noise(0, 0, 0, (0,)).keep_mask(object(), (7, 33), 0.5, CPU)
    assert not torch.equal(shared((0,)), own)


def test_uniform_numbers_are_keyed_like_masks() -> None:
    noise = Noise(1, 2, 3, (0, 1, 2))
    together = noise.uniform(object(), (12, 5), CPU)
    assert together.dtype == torch.float32
    assert (together >= 0).all()
    assert (together < 1).all()
    for copy in range(3):
        assert torch.equal(together[4 * copy : 4 * copy + 4], Noise(1, 2, 3, (copy,)).uniform(object(), (4, 5), CPU))
    assert not torch.equal(together[:4], together[4:8])
    assert not torch.equal(together, Noise(1, 3, 3, (0, 1, 2)).uniform(object(), (12, 5), CPU))
    with pytest.raises(ValueError, match="a multiple of 3"):
        noise.uniform(object(), (4, 5), CPU)


def test_uniform_numbers_are_uniform() -> None:
    numbers = Noise(0, 0, 0, (0, 1)).uniform(object(), (100, 100), CPU).double()
    # Moments of the uniform distribution: 1/2 and 1/12; five standard deviations of 10,000 draws.
    assert numbers.mean().item() == pytest.approx(1 / 2, abs=5 * (1 / 12 / 1e4) ** 0.5)
    assert numbers.var().item() == pytest.approx(1 / 12, abs=5 * (1 / 180 / 1e4) ** 0.5)


def test_a_copys_generator_is_the_same_in_any_company() -> None:
    owner = object()
    three = [torch.randn(3, generator=each) for each in Noise(4, 5, 6, (0, 1, 2)).generators(owner, CPU)]
    assert len(three) == 3
    (alone,) = (torch.randn(3, generator=each) for each in Noise(4, 5, 6, (1,)).generators(owner, CPU))
    assert torch.equal(three[1], alone)
    assert not torch.equal(three[0], three[1])
    shared = [torch.randn(3, generator=each) for each in Noise(4, 5, 6, (0, 1, 2)).generators(owner, CPU, shared=True)]
    assert len(shared) == 1
