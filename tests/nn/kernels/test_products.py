"""Products and transposes of training against torch's own."""

from __future__ import annotations

import pytest
import torch

from seqba.nn.kernels.products import STRIP, product, transposed


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_product_is_that_of_a_linear_layer(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    a, b, bias = (torch.randn(shape, dtype=dtype) for shape in [(7, 5), (3, 5), (3,)])
    torch.testing.assert_close(product(a, b, bias), a @ b.t() + bias)
    torch.testing.assert_close(product(a.t(), product(a, b).t()), a.t() @ (a @ b.t()))


@pytest.mark.parametrize("rows", [0, 1, STRIP - 1, STRIP, 2 * STRIP + 3])
def test_transposing_in_strips_moves_every_element(rows: int) -> None:
    a = torch.arange(rows * 4, dtype=torch.float32).view(rows, 4)
    assert torch.equal(transposed(a), a.t())
    assert transposed(a).is_contiguous()
