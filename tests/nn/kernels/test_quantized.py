"""Linear layers in int8 against sums of integers, and against what they stand for."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from torch import Tensor

from seqba.nn.kernels.quantized import QuantizedLinear, can_quantize, weight_levels

needs_int8 = pytest.mark.skipif(not can_quantize(), reason="this torch offers no int8 product for this processor")


def by_integers(x: Tensor, weight: Tensor, bias: Tensor, levels: int) -> Tensor:
    """What the layer stands for, in float64: both sides rounded to whole numbers of their scales."""
    row_scale = x.abs().amax(1, keepdim=True) / 127
    scale = weight.abs().amax(1, keepdim=True) / levels
    sums = (x / row_scale).round().double() @ (weight / scale).round().double().t()
    return sums * row_scale.double() * scale.double().t() + bias.double()


def one_sided(rows: int, width: int, outputs: int) -> tuple[Tensor, Tensor, Tensor]:
    """Rows and weights of one sign near their largest: sums of two products overflow 16 bits at 127 levels."""
    torch.manual_seed(0)
    return 3 + torch.rand(rows, width), 3 + torch.rand(outputs, width), torch.randn(outputs)


@needs_int8
@pytest.mark.parametrize("width", [24, 37])
def test_it_is_the_sum_of_whole_numbers(width: int) -> None:
    x, weight, bias = one_sided(5, width, 40)
    x[1] = torch.randn(width)
    expected = by_integers(x, weight, bias, weight_levels())
    torch.testing.assert_close(QuantizedLinear(weight, bias)(x).double(), expected, rtol=1e-5, atol=1e-4)


@needs_int8
def test_it_is_near_the_layer_in_float32() -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(20, 256), torch.randn(100, 256)
    exact = x @ weight.t()
    assert (QuantizedLinear(weight, None)(x) - exact).norm() < 0.02 * exact.norm()


@needs_int8
def test_a_row_does_not_depend_on_its_company_and_zeros_stay_zero() -> None:
    torch.manual_seed(0)
    layer = QuantizedLinear(torch.randn(40, 24), None)
    x = torch.randn(7, 24)
    x[3] = 0
    x[5] *= 1000
    together = layer(x)
    for number in range(7):
        assert torch.equal(layer(x[number : number + 1])[0], together[number])
    assert together[3].abs().max() == 0


@needs_int8
@pytest.mark.slow
@pytest.mark.parametrize("instructions", ["AVX2", "AVX512_CORE"])
def test_a_processor_without_vnni_overflows_nothing(instructions: str) -> None:
    program = """
import torch
from tests.nn.kernels.test_quantized import by_integers, one_sided
from seqba.nn.kernels.quantized import QuantizedLinear, weight_levels
x, weight, bias = one_sided(5, 64, 40)
torch.testing.assert_close(
    QuantizedLinear(weight, bias)(x).double(), by_integers(x, weight, bias, 63), rtol=1e-5, atol=1e-4
)
print(weight_levels())
"""
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": instructions}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "63\n"), done.stderr
