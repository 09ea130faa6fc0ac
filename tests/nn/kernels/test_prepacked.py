"""Linear layers in blocks against the ordinary ones."""

from __future__ import annotations

import pytest
import torch
from processors import INTEL_WITH_AMX
from torch import nn

from seqba.nn.kernels.prepacked import (
    MANY_ROWS,
    PaddedOutputs,
    PrepackedLinear,
    chunked_product,
    padded_outputs,
    prepacked,
    prepacked_product,
    prepacked_sum,
)
from seqba.nn.kernels.processor import Processor, onednn_has_bfloat16
from seqba.nn.kernels.products import HAS_ONEDNN

needs_onednn = pytest.mark.skipif(not HAS_ONEDNN, reason="this torch offers no oneDNN product")


@needs_onednn
@pytest.mark.parametrize("rows", [1, 4, 70])
def test_blocked_products_equal_the_frameworks(rows: int) -> None:
    torch.manual_seed(0)
    layer, x = nn.Linear(24, 40), torch.randn(rows, 24)
    with torch.no_grad():
        blocked = PrepackedLinear(layer.weight, layer.bias)
        torch.testing.assert_close(blocked(x), layer(x))
        torch.testing.assert_close(blocked(x, is_rectified=True), layer(x).relu())
        torch.testing.assert_close(prepacked_product(layer.weight)(x), x @ layer.weight.T)


@needs_onednn
@pytest.mark.skipif(not onednn_has_bfloat16(), reason="oneDNN has no bfloat16 here: a processor without AVX-512")
def test_bfloat16_products_run_from_blocks_where_the_processor_multiplies_it(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    layer, x = nn.Linear(24, 40).bfloat16(), torch.randn(5, 24).bfloat16()
    expected = layer(x).float()
    kinds = ((["amx_bf16"], PrepackedLinear), (["avx512_bf16"], PrepackedLinear), (["avx512f"], nn.Linear))
    for features, kind in kinds:
        monkeypatch.setattr("seqba.nn.kernels.prepacked.processor", lambda f=features: Processor(features=frozenset(f)))
        twin = prepacked(layer)
        assert isinstance(twin, kind)
        with torch.no_grad():
            assert (twin(x).float() - expected).norm() < 1e-2 * expected.norm()


@needs_onednn
@pytest.mark.parametrize(
    ("vendor", "rows", "in_blocks"),
    [("AuthenticAMD", MANY_ROWS, True), ("AuthenticAMD", MANY_ROWS - 1, False), ("GenuineIntel", MANY_ROWS, False)],
)
def test_amd_multiplies_many_rows_from_blocks(
    vendor: str, rows: int, in_blocks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Processor(vendor, frozenset(["avx512f"]))
    monkeypatch.setattr("seqba.nn.kernels.prepacked.processor", lambda: machine)
    torch.manual_seed(0)
    weight, bias, x, upstream = (torch.randn(shape) for shape in [(40, 24), (40,), (5, 24), (5, 40)])
    project, project_back = chunked_product(weight, bias, rows), chunked_product(weight.t(), None, rows)
    assert isinstance(project, PrepackedLinear) is isinstance(project_back, PrepackedLinear) is in_blocks
    with torch.no_grad():
        torch.testing.assert_close(project(x), x @ weight.t() + bias)
        torch.testing.assert_close(project_back(upstream), upstream @ weight)


@needs_onednn
@pytest.mark.skipif(not onednn_has_bfloat16(), reason="oneDNN has no bfloat16 here: a processor without AVX-512")
@pytest.mark.parametrize(("rows", "copied"), [(MANY_ROWS, 1), (MANY_ROWS - 1, 0)])
def test_for_tiles_many_rows_read_columns_that_are_made_once(
    rows: int, copied: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seqba.nn.kernels.prepacked.processor", lambda: INTEL_WITH_AMX)
    copies: list[torch.Tensor] = []
    monkeypatch.setattr("seqba.nn.kernels.prepacked.transposed", lambda a: copies.append(a) or a.t().contiguous())
    torch.manual_seed(0)
    weight, bias, x, upstream = (torch.randn(shape).bfloat16() for shape in [(40, 24), (40,), (9, 24), (9, 40)])
    exact = x.double() @ weight.double().t()
    for project, expected in [
        (chunked_product(weight, None, rows), exact),
        (chunked_product(weight, bias, rows), exact + bias),
        (chunked_product(weight.t(), None, rows), upstream.double() @ weight.double()),  # lies in columns as it is
    ]:
        read = x if expected.shape[1] == 40 else upstream
        for _ in range(2):
            assert (project(read) - expected).norm() < 1e-2 * expected.norm()
    assert len(copies) == 2 * copied


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_blocked_sum_adds_to_the_product_and_leaves_both_sides_alone(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    weight, x, other = (torch.randn(shape, dtype=dtype) for shape in [(40, 24), (5, 24), (5, 40)])
    before = other.clone()
    torch.testing.assert_close(prepacked_sum(weight)(x, other), x @ weight.t() + before)
    assert torch.equal(other, before)


@needs_onednn
def test_everything_but_linear_layers_is_shared_and_the_module_stays_as_it_was() -> None:
    module = nn.Sequential(nn.LayerNorm(8), nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5)), nn.ReLU())
    twin = prepacked(module)
    assert isinstance(twin, nn.Sequential)
    assert twin[0] is module[0]
    assert isinstance(twin[1][0], PrepackedLinear)
    assert twin[1][1] is module[1][1]
    assert twin[2] is module[2]
    assert isinstance(module[1][0], nn.Linear)
    x = torch.randn(3, 8)
    with torch.no_grad():
        torch.testing.assert_close(twin.eval()(x), module.eval()(x))


def test_other_precisions_keep_the_ordinary_layer() -> None:
    module = nn.Sequential(nn.Linear(8, 8, dtype=torch.float64), nn.ReLU())
    assert prepacked(module) is module
    weight, x = torch.randn(5, 8), torch.randn(3, 8)
    torch.testing.assert_close(prepacked_product(weight.double())(x.double()), x.double() @ weight.double().T)
    plain = nn.Sequential(nn.Linear(8, 8))
    with torch.autocast("cpu", torch.bfloat16):
        assert prepacked(plain) is plain
        assert prepacked_product(weight)(x).dtype == torch.bfloat16


@needs_onednn
@pytest.mark.parametrize("has_bias", [True, False])
def test_a_sum_is_part_of_the_product(has_bias: bool) -> None:
    torch.manual_seed(0)
    layer, x, other = nn.Linear(24, 40, bias=has_bias), torch.randn(5, 24), torch.randn(5, 40)
    with torch.no_grad():
        torch.testing.assert_close(PrepackedLinear(layer.weight, layer.bias).plus(x, other), layer(x) + other)


@needs_onednn
@pytest.mark.parametrize("has_bias", [True, False])
def test_padded_outputs_are_left_away(has_bias: bool) -> None:
    torch.manual_seed(0)
    layer, x = nn.Linear(24, 50, bias=has_bias), torch.randn(5, 24)
    with torch.no_grad():
        padded = padded_outputs(PrepackedLinear, layer.weight, layer.bias)
        torch.testing.assert_close(padded(x), layer(x))
    assert isinstance(padded, PaddedOutputs)
    assert isinstance(padded_outputs(PrepackedLinear, layer.weight[:32], None), PrepackedLinear)
