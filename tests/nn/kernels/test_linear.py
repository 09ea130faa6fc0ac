"""Linear layers that keep less, against the plain modules they stand for."""

from __future__ import annotations

import pytest
import torch
from processors import INTEL_WITH_AMX
from torch import Tensor, nn

from seqba.nn.kernels import products
from seqba.nn.kernels.linear import _Linears, gathered_linear, linear, linears, norm_linear
from seqba.nn.kernels.prepacked import prepacked
from seqba.nn.kernels.processor import Processor
from seqba.runtime.activations import SavedBytes


@pytest.fixture
def modules() -> tuple[nn.LayerNorm, nn.Linear]:
    torch.manual_seed(0)
    norm = nn.LayerNorm(6, dtype=torch.float64)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    return norm, nn.Linear(6, 4, dtype=torch.float64)


def gradients(outputs: list[Tensor], x: Tensor, *modules: nn.Module) -> list[Tensor]:
    total = sum((output * torch.arange(output.numel()).view_as(output)).sum() for output in outputs)
    return list(torch.autograd.grad(total, [x, *(p for module in modules for p in module.parameters())]))


@pytest.mark.parametrize("uses_y", [True, False])
def test_norm_linear_is_a_norm_and_a_linear_layer(modules: tuple[nn.LayerNorm, nn.Linear], uses_y: bool) -> None:
    norm, linear = modules
    x = torch.randn(5, 6, dtype=torch.float64, requires_grad=True)
    y, z = norm_linear(x, norm, linear)
    torch.testing.assert_close(y, norm(x))
    torch.testing.assert_close(z, linear(norm(x)))
    ours = gradients([y, z] if uses_y else [z], x, norm, linear)
    expected = gradients([norm(x), linear(norm(x))] if uses_y else [linear(norm(x))], x, norm, linear)
    for gradient, reference in zip(ours, expected, strict=True):
        torch.testing.assert_close(gradient, reference)


def test_gathered_linear_is_a_linear_layer_on_some_rows(modules: tuple[nn.LayerNorm, nn.Linear]) -> None:
    _, linear = modules
    x = torch.randn(5, 6, dtype=torch.float64, requires_grad=True)
    index = torch.tensor([0, 1, 4])
    z = gathered_linear(x, index, linear)
    torch.testing.assert_close(z, linear(x[index]))
    for gradient, reference in zip(gradients([z], x, linear), gradients([linear(x[index])], x, linear), strict=True):
        torch.testing.assert_close(gradient, reference)


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_all_of_them_equal_the_frameworks_layer_in_either_precision(dtype: torch.dtype, bound: float) -> None:
    torch.manual_seed(0)
    layer, norm = nn.Linear(24, 40, dtype=dtype), nn.LayerNorm(24, dtype=dtype)
    x = torch.randn(70, 24, dtype=dtype, requires_grad=True)
    everything = torch.arange(70)
    pairs = [
        (linear(x, layer), layer(x)),
        (gathered_linear(x, everything, layer), layer(x)),
        (norm_linear(x, norm, layer)[1], layer(norm(x))),
    ]
    upstream = torch.randn(70, 40, dtype=dtype)
    for ours, theirs in pairs:
        assert (ours - theirs).norm() < bound * theirs.norm()
        inputs = [x, layer.weight, layer.bias]
        for gradient, expected in zip(
            torch.autograd.grad(ours, inputs, upstream),
            torch.autograd.grad(theirs, inputs, upstream, retain_graph=True),
            strict=True,
        ):
            assert (gradient - expected).norm() < bound * expected.norm()


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("machine", [INTEL_WITH_AMX, Processor()], ids=["in tiles", "elsewhere"])
@pytest.mark.parametrize("kind", ["linear", "norm", "plain"])
def test_a_rectified_layer_is_a_layer_and_a_relu(
    kind: str, machine: Processor, dtype: torch.dtype, bound: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(products, "processor", lambda: machine)
    torch.manual_seed(0)
    layer, norm = nn.Linear(24, 40, dtype=dtype), nn.LayerNorm(24, dtype=dtype)
    x = torch.randn(70, 24, dtype=dtype, requires_grad=True)
    read = norm(x) if kind == "norm" else x
    expected = nn.functional.relu(layer(read))
    if kind == "plain":  # no gradient to take
        with torch.no_grad():
            assert torch.equal(linear(x, layer, is_rectified=True), expected)
        return
    ours = norm_linear(x, norm, layer, is_rectified=True)[1] if kind == "norm" else linear(x, layer, is_rectified=True)
    assert (ours - expected).norm() <= bound * expected.norm()
    assert (ours == 0).any()
    inputs, upstream = [x, layer.weight, layer.bias], torch.randn_like(expected)
    found = torch.autograd.grad(ours, inputs, upstream)
    for gradient, reference in zip(found, torch.autograd.grad(expected, inputs, upstream), strict=True):
        assert (gradient - reference).norm() < bound * reference.norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("broken", ["weight", "bias"])
@pytest.mark.parametrize("kind", ["linear", "norm", "plain", "in blocks"])
def test_a_rectifier_hides_no_weight_that_is_no_number(kind: str, broken: str, dtype: torch.dtype) -> None:
    layer, norm = nn.Linear(24, 40, dtype=dtype), nn.LayerNorm(24, dtype=dtype)
    with torch.no_grad():
        getattr(layer, broken)[3] = torch.nan
    x = torch.randn(70, 24, dtype=dtype)
    with torch.set_grad_enabled(kind in ("linear", "norm")):
        module = prepacked(layer) if kind == "in blocks" else layer
        found = (
            norm_linear(x, norm, layer, is_rectified=True)[1]
            if kind == "norm"
            else linear(x, module, is_rectified=True)
        )
    assert found[:, 3].isnan().all()
    assert found[:, 4:].isfinite().all()


def test_they_keep_their_input_alone(modules: tuple[nn.LayerNorm, nn.Linear]) -> None:
    norm, linear = modules
    x = torch.randn(1000, 6, dtype=torch.float64, requires_grad=True)
    saved = SavedBytes(nn.ModuleList([norm, linear]))
    with saved.counting():
        norm_linear(x, norm, linear)
    assert saved.total == x.nbytes + 2 * 8 * 1000  # x, and each row's mean and deviation


def test_under_autocast_a_norm_is_kept_in_16_bits() -> None:
    norm, linear = nn.LayerNorm(6), nn.Linear(6, 4)
    x = torch.randn(1000, 6, requires_grad=True)
    saved = SavedBytes(nn.ModuleList([norm, linear]))
    with saved.counting(), torch.autocast("cpu", torch.bfloat16):
        norm_linear(x, norm, linear)
    assert saved.total == x.nbytes + x.nbytes // 2 + 2 * 4 * 1000


@pytest.mark.parametrize("kind", ["norm", "gathered"])
def test_under_autocast_products_are_bfloat16_and_gradients_float32(kind: str) -> None:
    torch.manual_seed(0)
    norm, linear = nn.LayerNorm(6), nn.Linear(6, 4)
    x = torch.randn(5, 6, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        z = norm_linear(x, norm, linear)[1] if kind == "norm" else gathered_linear(x, torch.arange(5), linear)
        z.float().sum().backward()
    assert z.dtype == torch.bfloat16
    assert linear.weight.grad.dtype == x.grad.dtype == torch.float32


def test_several_layers_in_one_product_are_the_layers_one_by_one() -> None:
    """The way of a GPU, on the CPU."""
    layers = [nn.Linear(6, 4).double() for _ in range(3)]
    x = torch.randn(5, 6, dtype=torch.float64, requires_grad=True)
    factors = torch.randn(3, 5, 4, dtype=torch.float64)
    gradients = []
    parameters = [x, *(layer.weight for layer in layers), *(layer.bias for layer in layers)]
    for found in (linears(x, layers), _Linears.apply(x, 3, *parameters[1:])):
        total = sum((factor * z).sum() for factor, z in zip(factors, found, strict=True))
        gradients.append(torch.autograd.grad(total, parameters))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)
