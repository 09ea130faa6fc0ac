"""Draws of a GPU, on the CPU: torch's form against published numbers, Triton's kernels against torch's form."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import seqba
from seqba.core import Noise, noise_context
from seqba.noise import noise
from seqba.random import philox
from seqba.random.masks import kept_scale
from seqba.random.philox import Draw, rounds

CPU = torch.device("cpu")
ROOT = Path(__file__).resolve().parents[2]
LEVEL = 20_000


@pytest.fixture
def counter(monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU draws as a GPU does."""
    monkeypatch.setattr(noise, "draws_by_counter", lambda _: True)


@pytest.mark.parametrize(
    ("counter_words", "key", "expected"),
    [
        # Known answers of the paper's own library, Random123: kat_vectors, philox4x32 10.
        ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ],
)
def test_the_numbers_are_those_of_the_papers_library(counter_words: str, key: str, expected: str) -> None:
    words = [torch.tensor([int(word, 16)]) for word in counter_words.split()]
    low, high = (int(word, 16) for word in key.split())
    assert " ".join(f"{int(word):08x}" for word in rounds(words, low, high)) == expected


def draw(*, update: int = 0, micro_batch: int = 0, seed: int = 0, copies: tuple[int, ...] = (0,)) -> Tensor:
    return Noise(seed, update, micro_batch, copies).keep_mask(object(), (8 * len(copies), 33), 0.5, CPU)


@pytest.mark.usefixtures("counter")
def test_every_part_of_the_key_matters_and_a_copy_draws_the_same_in_any_company() -> None:
    masks = [draw(), draw(seed=1), draw(update=1), draw(micro_batch=1), draw(copies=(1,))]
    for one, other in itertools.combinations(masks, 2):
        assert abs((one == other).float().mean().item() - 0.5) < 0.16  # 264 fair draws, five standard deviations
    together = draw(copies=(0, 1, 2, 3)).view(4, 8, 33)
    for number in range(4):
        assert torch.equal(together[number], draw(copies=(number,)))
    with pytest.raises(ValueError, match="neighbours"):
        draw(copies=(0, 2))


@pytest.mark.usefixtures("counter")
@pytest.mark.parametrize("p", [0.1, 0.5])
def test_elements_are_dropped_with_the_probability_and_by_themselves(p: float) -> None:
    kept = Noise(3, 1, 4, (0, 1)).keep_mask(object(), (512, 1001), p, CPU).double()
    assert kept.mean().item() == pytest.approx(1 - p, abs=5 * (p * (1 - p) / kept.numel()) ** 0.5)
    centred = (kept - kept.mean()).flatten()
    for lag in (1, 2, 7, 8, 1001):  # neighbours within a call of the generator, and from row to row
        correlation = (centred[:-lag] * centred[lag:]).mean() / centred.var()
        assert abs(correlation.item()) < 5 / kept.numel() ** 0.5


@pytest.mark.usefixtures("counter")
def test_copies_of_different_numbers_of_rows_draw_what_they_draw_alone() -> None:
    owner = object()
    mask = Noise(0, 0, 0, (0, 1)).keep_mask(owner, (7, 5), 0.5, CPU, rows=(3, 4))
    assert torch.equal(mask[:3], Noise(0, 0, 0, (0,)).keep_mask(owner, (3, 5), 0.5, CPU))
    assert torch.equal(mask[3:], Noise(0, 0, 0, (1,)).keep_mask(owner, (4, 5), 0.5, CPU))


@pytest.mark.usefixtures("counter")
def test_uniform_numbers_are_uniform_and_keyed() -> None:
    numbers = Noise(0, 0, 0, (0, 1)).uniform(object(), (100, 100), CPU)
    assert numbers.dtype == torch.float32
    assert 0 <= numbers.min() < 0.01 < 0.99 < numbers.max() < 1
    assert numbers.mean().item() == pytest.approx(1 / 2, abs=5 * (1 / 12 / 1e4) ** 0.5)
    assert torch.equal(numbers[50:], Noise(0, 0, 0, (1,)).uniform(object(), (50, 100), CPU))


@pytest.mark.usefixtures("counter")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_fused_drop_is_the_mask_applied_forward_and_backward(dtype: torch.dtype) -> None:
    module = seqba.nn.Dropout(0.3)
    x = torch.randn(6, 11).to(dtype).requires_grad_()
    residual = torch.randn(6, 11, requires_grad=True)
    with noise_context(Noise(0, 0, 0, (0, 1), {id(module): "m"})):
        y = module.add(residual, x)
    grad = torch.randn_like(y)
    y.backward(grad)
    kept = Noise(0, 0, 0, (0, 1), {id(module): "m"}).keep_mask(module, x.shape, 0.3, CPU)
    factors = kept * kept_scale(0.3)
    assert y.dtype == torch.float32
    torch.testing.assert_close(y, residual + x.float() * factors)
    assert x.grad is not None
    assert x.grad.dtype == dtype
    torch.testing.assert_close(x.grad, (grad * factors).to(dtype))
    assert torch.equal(residual.grad, grad)


def test_a_kernel_that_is_launched_at_once_drops_what_the_operator_drops(monkeypatch: pytest.MonkeyPatch) -> None:
    draw, x, grad = Draw.of(7, (0, 1)), torch.randn(6, 11, requires_grad=True), torch.randn(6, 11)
    by_operator = draw.drop(x, None, LEVEL)
    monkeypatch.setattr(philox, "_needs_no_operator", lambda _: True)
    monkeypatch.setattr(philox, "_kernels", lambda: None)
    monkeypatch.setattr(philox, "_operators", lambda: pytest.fail("the operator was called"))
    at_once = draw.drop(x, None, LEVEL)
    assert torch.equal(at_once, by_operator)
    assert torch.equal(*(torch.autograd.grad(y, x, grad)[0] for y in (at_once, by_operator)))


def test_the_gradient_of_a_fused_drop_can_be_differentiated() -> None:
    """A penalty on gradients: the kernel has no derivative of its own, and torch warns of what it makes up for it."""
    draw = Draw.of(7, (0, 1))
    x = torch.randn(6, 11, requires_grad=True)
    (slope,) = torch.autograd.grad(draw.drop(x, None, LEVEL).square().sum(), x, create_graph=True)
    (curved,) = torch.autograd.grad(slope.square().sum(), x)
    factors = draw.keep_mask((6, 11), LEVEL, CPU) * (65536 / (65536 - LEVEL))
    torch.testing.assert_close(curved, 8 * factors**4 * x.detach())


@pytest.mark.usefixtures("counter")
def test_plans_agree() -> None:
    gradients = []
    for plan in ("stacked", "looped", 2):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(5, 16), seqba.nn.Dropout(0.3), nn.Linear(16, 1), seqba.nn.Dropout(0.1))
        x = torch.randn(6, 5)
        seqba.merged_gradient(model, x, lambda model, x: model(x).square().mean(), copies=4, plan=plan, update=3)
        gradients.append(torch.cat([one.grad.flatten() for one in model.parameters()]))
    torch.testing.assert_close(gradients[0], gradients[1])
    torch.testing.assert_close(gradients[0], gradients[2])


KERNELS = """
import torch
from seqba.random import philox, philox_kernels as kernels
torch.manual_seed(0)
for shape, copies, first, key in (((148, 13), 4, 0, -5), ((6, 5), 2, 3, 0x7EDCBA9876543210), ((8, 300), 1, -1, 77)):
    mask, other = torch.empty(2, *shape, dtype=torch.int8)
    kernels.mask(mask, copies, first, key, 20_000), philox._mask_by_torch(other, copies, first, key, 20_000)
    assert torch.equal(mask, other)
    numbers, other = torch.empty(2, *shape)
    kernels.uniform(numbers, copies, first, key), philox._uniform_by_torch(other, copies, first, key)
    assert torch.equal(numbers, other)
    x, added, out = torch.randn(3, *shape)
    for extra in (None, added):
        kernels.drop(out, x, extra, copies, first, key, 20_000)
        torch.testing.assert_close(out, philox._drop_by_torch(x, extra, copies, first, key, 20_000, torch.float32))
"""


def test_tritons_kernels_draw_the_same_bits() -> None:
    pytest.importorskip("triton", reason="the kernels are Triton's; pip install triton")
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    run = subprocess.run([sys.executable, "-c", KERNELS], env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


def test_nothing_of_triton_is_imported_on_a_cpu() -> None:
    code = "import sys, torch, seqba; from seqba.core import Noise\n"
    code += "Noise(0, 0, 0, (0,)).keep_mask(object(), (4, 4), 0.5, torch.device('cpu'))\n"
    code += "assert 'seqba.random.philox_kernels' not in sys.modules"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


def test_a_draw_of_no_rows_is_empty() -> None:
    assert Draw(1, 0, 1).keep_mask((0, 4), LEVEL, CPU).shape == (0, 4)
