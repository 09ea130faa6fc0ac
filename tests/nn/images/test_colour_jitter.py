"""Colour jitter against a slow reading of each picture."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from pictures import check_outside_an_update, check_the_draws, drawn_numbers, in_pass, random_pictures

from seqba.nn.images.colour_jitter import ColourJitter


def slow_change(picture: np.ndarray, change: int, factor: float) -> np.ndarray:
    """Brightness, contrast or saturation (0, 1, 2) of one picture (3, H, W), as torchvision defines it."""
    _, height, width = picture.shape
    grey = [
        [0.2989 * picture[0, y, x] + 0.587 * picture[1, y, x] + 0.114 * picture[2, y, x] for x in range(width)]
        for y in range(height)
    ]
    mean = sum(map(sum, grey)) / (height * width)
    changed = np.zeros(picture.shape)
    for channel, y, x in np.ndindex(*picture.shape):
        target = (0, mean, grey[y][x])[change]
        changed[channel, y, x] = min(max(factor * picture[channel, y, x] + (1 - factor) * target, 0), 255)
    return changed


def slow_jitter(picture: np.ndarray, factors: list[float], order: tuple[int, ...]) -> np.ndarray:
    for change in order:
        picture = slow_change(picture, change, factors[change])
    return picture


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_a_copy_draws_the_same_in_any_company_and_every_key_differs(dtype: torch.dtype) -> None:
    images = random_pictures(5, 7, 9).to(dtype)
    check_the_draws(ColourJitter(0.4, 0.4, 0.4), images)
    assert in_pass(ColourJitter(0.4, 0.4, 0.4), images).dtype == torch.float32


def test_outside_an_update_it_is_ordinary() -> None:
    check_outside_an_update(ColourJitter(0.4, 0.4, 0.4), random_pictures(5, 7, 9))


@pytest.mark.parametrize("strengths", [(0.4, 0.4, 0.4), (0.8, 2.5, 0.3), (1.0, 0.0, 3.0)])
def test_changes_are_those_of_the_definition(strengths: tuple[float, float, float]) -> None:
    images = random_pictures(30, 4, 5)
    changed = in_pass(ColourJitter(*strengths), images)
    numbers = drawn_numbers(30, 6)
    for picture, result, number in zip(images.double().numpy(), changed.numpy(), numbers, strict=True):
        factors = [
            max(0, 1 - strength) + (1 + strength - max(0, 1 - strength)) * float(u)
            for strength, u in zip(strengths, number[:3], strict=True)
        ]
        # The change with the smallest of the three further numbers comes first.
        order = tuple(sorted(range(3), key=lambda change: number[3 + change]))
        np.testing.assert_allclose(result, slow_jitter(picture, factors, order), atol=1e-3)


def test_all_six_orders_occur_in_a_pass() -> None:
    # Changes commute but for their clamping, so strong ones of strong colours tell the orders apart.
    colours = torch.tensor([[[[255, 30, 255, 0]], [[0, 250, 200, 5]], [[255, 5, 20, 200]]]], dtype=torch.uint8)
    changed = in_pass(ColourJitter(3, 3, 3), colours.expand(100, -1, -1, -1)).numpy()
    told = set()
    for result, number in zip(changed, drawn_numbers(100, 6), strict=True):
        factors = [4 * float(u) for u in number[:3]]
        candidates = {
            order: slow_jitter(colours[0].double().numpy(), factors, order)
            for order in itertools.permutations(range(3))
        }
        found = [order for order, candidate in candidates.items() if np.abs(candidate - result).max() < 1e-2]
        assert found
        told.update(found[: len(found) == 1])
    assert len(told) == 6


@pytest.mark.parametrize(("strength", "lowest"), [(0.4, 0.6), (1.5, 0.0)])
def test_factors_are_uniform_around_one(strength: float, lowest: float) -> None:
    grey = torch.full((2000, 3, 1, 1), 100, dtype=torch.uint8)
    factors = in_pass(ColourJitter(brightness=strength), grey)[:, 0, 0, 0] / 100
    highest = 1 + strength
    assert (factors.min(), factors.max()) == (pytest.approx(lowest, abs=0.01), pytest.approx(highest, abs=0.01))
    assert factors.mean().item() == pytest.approx((lowest + highest) / 2, abs=0.05)
    assert factors.std().item() == pytest.approx((highest - lowest) / 12**0.5, rel=0.05)


def test_no_strength_changes_nothing() -> None:
    images = random_pictures(6, 4, 5)
    assert torch.equal(in_pass(ColourJitter(), images), images.float())


def test_unsuitable_pictures_and_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="they have 1 channels"):
        ColourJitter(0.4)(torch.zeros(2, 1, 4, 4))
    with pytest.raises(ValueError, match="pictures must be"):
        ColourJitter(0.4)(torch.zeros(3, 4, 4))
    for strengths in ((-0.1, 0, 0), (0, -0.1, 0), (0, 0, float("nan"))):
        with pytest.raises(ValueError, match="none may be negative"):
            ColourJitter(*strengths)
