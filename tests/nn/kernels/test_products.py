"""Products and transposes of training against torch's own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from processors import AMD, INTEL_WITH_AMX, INTEL_WITHOUT_AMX, OLD_AMD

from seqba.nn.kernels import processor as processor_module
from seqba.nn.kernels import products
from seqba.nn.kernels.processor import Processor, onednn_has_bfloat16, parse_cpu_info, processor
from seqba.nn.kernels.products import (
    MANY_COLUMNS,
    NARROW_COLUMNS,
    NARROW_STRIP,
    STRIP,
    describe_products,
    is_transposed_first,
    is_turned,
    linear_gradients,
    product,
    product_as,
    sum_as,
    takes_linear_operator,
    transposed,
)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_product_is_that_of_a_linear_layer(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    a, b, bias = (torch.randn(shape, dtype=dtype) for shape in [(7, 5), (3, 5), (3,)])
    torch.testing.assert_close(product(a, b, bias), a @ b.t() + bias)
    torch.testing.assert_close(product(a.t(), product(a, b).t()), a.t() @ (a @ b.t()))


@pytest.mark.parametrize("rows", [0, 1, NARROW_STRIP + 1, STRIP - 1, STRIP, 2 * STRIP + 3])
@pytest.mark.parametrize("columns", [4, NARROW_COLUMNS + 1])
def test_transposing_in_strips_moves_every_element(rows: int, columns: int) -> None:
    a = torch.arange(rows * columns, dtype=torch.float32).view(rows, columns)
    assert torch.equal(transposed(a), a.t())
    assert transposed(a).is_contiguous()


@pytest.mark.parametrize("machine", [INTEL_WITH_AMX, INTEL_WITHOUT_AMX, AMD, OLD_AMD, Processor()])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_choice_is_the_same_product(
    machine: Processor, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    if machine.has_bfloat16 and dtype == torch.bfloat16 and not onednn_has_bfloat16():
        pytest.skip("oneDNN has no bfloat16 here: a processor without AVX-512")
    monkeypatch.setattr(products, "processor", lambda: machine)
    torch.manual_seed(0)
    x, weight, bias = (torch.randn(shape, dtype=dtype) for shape in [(40, 8), (24, 8), (24,)])
    upstream = torch.randn(40, 24, dtype=dtype)
    bound = 1e-5 if dtype == torch.float32 else 2e-2
    by_weights = [(upstream.t(), x.t(), None), (x.t(), upstream.t(), None)]
    for a, b, extra in [(x, weight, bias), (upstream, weight.t(), None), *by_weights]:
        expected = a.double() @ b.double().t() + (0 if extra is None else extra.double())
        assert (product(a, b, extra).double() - expected).norm() < bound * expected.norm()


def test_vendor_and_features_choose_the_library_of_each_kind_of_product(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "HAS_MKL", True)
    x, wide, bias = torch.empty(40, 8), torch.empty(40, 24), torch.empty(8)
    for dtype, machine, forward, by_input, to_fewer, to_more in [
        (torch.float32, INTEL_WITH_AMX, True, False, False, False),
        (torch.float32, AMD, True, True, True, False),
        (torch.float32, OLD_AMD, True, True, True, True),
        (torch.bfloat16, INTEL_WITH_AMX, True, False, False, False),
        (torch.bfloat16, AMD, True, False, False, False),
        (torch.bfloat16, OLD_AMD, False, False, False, False),
        (torch.float64, INTEL_WITH_AMX, False, False, False, False),
    ]:
        x, wide, bias = x.to(dtype), wide.to(dtype), bias.to(dtype)
        assert takes_linear_operator(x, x, bias, machine) is forward
        assert takes_linear_operator(x, x.t(), None, machine) is by_input
        assert takes_linear_operator(x.t(), wide.t(), None, machine) is to_fewer
        assert takes_linear_operator(wide.t(), x.t(), None, machine) is to_more


@pytest.mark.parametrize(("machine", "bound"), [(INTEL_WITHOUT_AMX, 1e-6), (AMD, 1e-2)])
def test_bfloat16_is_multiplied_in_float32_where_that_is_faster(
    machine: Processor, bound: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then the gradient by a weight isn't rounded on its way into float32 either."""
    if machine.has_bfloat16 and not onednn_has_bfloat16():
        pytest.skip("oneDNN has no bfloat16 here: a processor without AVX-512")
    monkeypatch.setattr(products, "processor", lambda: machine)
    torch.manual_seed(0)
    a, b = torch.randn(40, 24).bfloat16(), torch.randn(8, 24).bfloat16()
    exact = a.double() @ b.double().t()
    assert product(a, b).dtype == torch.bfloat16
    wide = product_as(a, b, torch.float32)
    assert wide.dtype == torch.float32
    error = (wide.double() - exact).norm() / exact.norm()
    assert bound / 100 < error < bound


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("columns", [3, MANY_COLUMNS + 1])
def test_the_gradient_of_a_bias_is_the_sum_of_the_rows(dtype: torch.dtype, columns: int) -> None:
    torch.manual_seed(0)
    rows = torch.randn(70, columns, dtype=dtype)
    found = sum_as(rows, torch.float32)
    assert found.dtype == torch.float32
    torch.testing.assert_close(
        found.double(), rows.double().sum(0), rtol=1e-2, atol=1e-1 if dtype == torch.bfloat16 else 1e-5
    )
    assert sum_as(rows[:0], torch.float32).equal(torch.zeros(columns))


def test_the_narrower_left_side_of_a_gradient_by_a_weight_is_transposed_first_for_tiles() -> None:
    x, wide = torch.empty(40, 8, dtype=torch.bfloat16), torch.empty(40, 24, dtype=torch.bfloat16)
    assert is_transposed_first(x.t(), wide.t(), INTEL_WITH_AMX)
    assert not is_transposed_first(x.t(), wide.t(), AMD)
    assert not is_transposed_first(x.t().float(), wide.t().float(), INTEL_WITH_AMX)
    assert not is_transposed_first(wide.t(), x.t(), INTEL_WITH_AMX)
    assert not is_transposed_first(x.t(), x.t(), INTEL_WITH_AMX)
    assert not is_transposed_first(x, torch.empty(99, 8), INTEL_WITH_AMX)


def test_for_tiles_the_gradient_of_a_wide_layer_is_its_transpose_and_the_bias_a_row_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    x, grad_z, weight = (torch.randn(shape).bfloat16() for shape in [(40, 8), (40, 24), (24, 8)])
    assert is_turned(grad_z, x, INTEL_WITH_AMX)
    assert not is_turned(grad_z, x, AMD)
    assert not is_turned(grad_z.float(), x.float(), INTEL_WITH_AMX)
    assert not is_turned(x, grad_z, INTEL_WITH_AMX)
    assert not is_turned(x, x, INTEL_WITH_AMX)
    results, multiplied = [], []
    for machine in (INTEL_WITH_AMX, AMD):
        monkeypatch.setattr(products, "processor", lambda machine=machine: machine)
        monkeypatch.setattr(products, "product", lambda *sides: multiplied.append(len(sides[0])) or product(*sides))
        results.append(linear_gradients(grad_z, x, weight, None))
    assert multiplied == [40, 9, 40, 24]
    for ours, theirs in zip(*results, strict=True):
        assert ours.is_contiguous()
        assert ours.shape == theirs.shape
        assert (ours - theirs).float().norm() < 2e-2 * theirs.float().norm()


@pytest.mark.parametrize(
    ("machine", "dtype", "told"),
    [
        (INTEL_WITH_AMX, torch.float32, "oneDNN, MKL for gradients"),
        (AMD, torch.float32, "oneDNN, MKL for gradients by weights of no fewer outputs than inputs"),
        (OLD_AMD, torch.float32, "oneDNN"),
        (INTEL_WITH_AMX, torch.bfloat16, "oneDNN, in AMX tiles"),
        (INTEL_WITHOUT_AMX, torch.bfloat16, "oneDNN, MKL for gradients; widened to float32, which is faster here"),
        (AMD, torch.bfloat16, "oneDNN"),
    ],
)
def test_a_log_tells_the_choice(
    machine: Processor, dtype: torch.dtype, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(products, "processor", lambda: machine)
    monkeypatch.setattr(products, "HAS_ONEDNN", True)
    monkeypatch.setattr(products, "HAS_MKL", True)
    monkeypatch.setattr(products, "onednn_has_bfloat16", lambda: True)
    assert describe_products(dtype) == told
    monkeypatch.setattr(products, "onednn_has_bfloat16", lambda: False)
    assert describe_products(dtype) == ("torch.mm" if dtype == torch.bfloat16 and "widened" not in told else told)
    monkeypatch.setattr(products, "HAS_ONEDNN", False)
    assert describe_products(dtype) == "torch.mm"


def test_a_processor_is_what_the_system_says_of_its_first_one() -> None:
    text = "processor\t: 0\nvendor_id\t: GenuineIntel\nflags\t\t: fpu amx_bf16\n\nprocessor\t: 1\nvendor_id\t: Other\n"
    assert parse_cpu_info(text) == Processor("GenuineIntel", frozenset(["fpu", "amx_bf16"]))
    assert parse_cpu_info("") == Processor()
    assert processor() is processor()


@pytest.mark.parametrize("is_supported", [True, False])
def test_there_is_no_bfloat16_where_onednn_leaves_it(
    is_supported: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its bfloat16 products fail there (ONEDNN_MAX_CPU_ISA=AVX2), and torch's don't."""
    info = tmp_path / "cpuinfo"
    info.write_text("vendor_id\t: GenuineIntel\nflags\t\t: fpu avx512_bf16 amx_bf16\n")
    monkeypatch.setattr(processor_module, "CPU_INFO", info)
    monkeypatch.setattr(processor_module, "onednn_has_bfloat16", lambda: is_supported)
    assert processor_module.processor.__wrapped__().has_amx is is_supported
    assert processor_module.processor.__wrapped__().has_bfloat16 is is_supported


@pytest.mark.parametrize("text", [None, "", "processor\t: 0\nvendor_id\t: GenuineIntel\n"])
def test_torch_tells_the_features_where_the_system_does_not(
    text: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a sandbox without /proc, whose AMX counted as absent."""
    if text is not None:
        (tmp_path / "cpuinfo").write_text(text)
    monkeypatch.setattr(processor_module, "CPU_INFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(processor_module, "onednn_has_bfloat16", lambda: True)
    for question, answer in (("avx512", True), ("avx512_bf16", False), ("amx_tile", True)):
        monkeypatch.setattr(torch.cpu, f"_is_{question}_supported", lambda answer=answer: answer)
    assert processor_module.processor.__wrapped__().features == {"avx512f", "amx_bf16"}
    monkeypatch.delattr(torch.cpu, "_is_amx_tile_supported")
    assert processor_module.processor.__wrapped__().features == {"avx512f"}
