from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from seqba.nn.kernels.divergence import copy_distance, copy_divergence


def by_definition(hidden: Tensor, weight: Tensor, copies: int) -> Tensor:
    """Mean over ordered pairs of copies, as torch counts a divergence."""
    logs = (hidden @ weight.T).log_softmax(1).chunk(copies)
    pairs = list(itertools.permutations(logs, 2))
    terms = [functional.kl_div(q, p, reduction="sum", log_target=True) for p, q in pairs]
    return torch.stack(terms).mean()


def inputs(copies: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(copies)
    hidden = torch.randn(copies * 5, 4, generator=generator, dtype=dtype, requires_grad=True)
    return hidden, torch.randn(7, 4, generator=generator, dtype=dtype, requires_grad=True)


@pytest.mark.parametrize("copies", [2, 3, 5])
@pytest.mark.parametrize("chunk", [1, 1 << 20])
def test_it_is_the_mean_over_pairs_and_so_is_its_gradient(
    copies: int, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seqba.nn.kernels.loss.CHUNK_ELEMENTS", chunk)
    hidden, weight = inputs(copies, torch.float64)
    found, expected = copy_divergence(hidden, weight, copies=copies), by_definition(hidden, weight, copies)
    assert torch.allclose(found, expected, rtol=1e-12)
    gradients = torch.autograd.grad(3 * found, (hidden, weight))
    for own, theirs in zip(gradients, torch.autograd.grad(3 * expected, (hidden, weight)), strict=True):
        assert torch.allclose(own, theirs, rtol=1e-10, atol=1e-12)


def test_two_copies_are_rdrops() -> None:
    hidden, weight = inputs(2, torch.float64)
    first, second = (hidden @ weight.T).softmax(1).chunk(2)
    forth, back = (first * (first / second).log()).sum(), (second * (second / first).log()).sum()
    assert torch.allclose(copy_divergence(hidden, weight, copies=2), (forth + back) / 2, rtol=1e-12)


def test_equal_copies_diverge_by_nothing() -> None:
    hidden, weight = inputs(2, torch.float32)
    same = hidden.detach()[:5].repeat(3, 1).requires_grad_()
    found = copy_divergence(same, weight, copies=3)
    (gradient,) = torch.autograd.grad(found, same)
    assert found.abs() < 1e-12
    assert gradient.abs().max() < 1e-7


def test_under_autocast_products_are_bfloat16_and_sums_float32() -> None:
    hidden, weight = inputs(2, torch.float32)
    expected = copy_divergence(hidden, weight, copies=2)
    with torch.autocast("cpu", torch.bfloat16):
        found = copy_divergence(hidden, weight, copies=2)
    assert found.dtype == torch.float32
    assert found != expected
    assert found.item() == pytest.approx(expected.item(), rel=0.05)


@pytest.mark.parametrize(("rows", "copies"), [(4, 1), (5, 2)])
def test_rows_that_are_no_copies_are_refused(rows: int, copies: int) -> None:
    with pytest.raises(ValueError, match=f"{rows} rows aren't those of {copies} copies"):
        copy_divergence(torch.zeros(rows, 3), torch.zeros(7, 3), copies=copies)
    with pytest.raises(ValueError, match="don't fit"):
        copy_divergence(torch.zeros(4, 2), torch.zeros(7, 3), copies=2)


def squares_by_definition(hidden: Tensor, weight: Tensor, copies: int) -> Tensor:
    """Fraternal dropout's term, mean over pairs: logits made, subtracted, squared, meant over the vocabulary."""
    logits = (hidden @ weight.T).chunk(copies)
    pairs = itertools.combinations(logits, 2)
    return torch.stack([(one - other).square().mean(1).sum() for one, other in pairs]).mean()


@pytest.mark.parametrize("copies", [2, 3, 5])
def test_the_distance_is_the_mean_over_pairs_and_so_is_its_gradient(copies: int) -> None:
    hidden, weight = inputs(copies, torch.float64)
    found, expected = copy_distance(hidden, weight, copies=copies), squares_by_definition(hidden, weight, copies)
    assert torch.allclose(found, expected, rtol=1e-12)
    gradients = torch.autograd.grad(3 * found, (hidden, weight))
    for own, theirs in zip(gradients, torch.autograd.grad(3 * expected, (hidden, weight)), strict=True):
        assert torch.allclose(own, theirs, rtol=1e-10, atol=1e-12)
    assert torch.autograd.gradcheck(lambda *tensors: copy_distance(*tensors, copies=copies), (hidden, weight))


def test_the_distance_is_float32_under_autocast() -> None:
    hidden, weight = inputs(2, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        found = copy_distance(hidden.bfloat16(), weight, copies=2)
    assert found.dtype == torch.float32
    assert torch.allclose(found, copy_distance(hidden, weight, copies=2), rtol=0.02)


def test_rows_of_a_single_copy_have_no_distance() -> None:
    hidden, weight = inputs(2, torch.float32)
    with pytest.raises(ValueError, match="there must be at least 2"):
        copy_distance(hidden, weight, copies=1)
