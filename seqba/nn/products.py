"""Matrix products of training: the faster of torch's two float32 libraries on x86."""

from __future__ import annotations

import platform

import torch
from torch import Tensor, nn

HAS_ONEDNN = (
    platform.machine().lower() in ("x86_64", "amd64")
    and bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
    and hasattr(torch.ops.mkldnn, "_linear_pointwise")
)
"""Whether torch was built with oneDNN and offers its linear layer as an operator."""


def product(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    """a·bᵀ + bias, the product of a linear layer.

    torch multiplies float32 on a CPU with MKL, which leaves a part of some processors unused (AMD's, for one). oneDNN
    is built into the same torch and compiles its kernels for the processor at hand; torch reaches it for float32
    only through the operator that its own compiler emits. The choice depends on types and the machine alone, never
    on timing, so that a resumed run multiplies as it did before. `recipes/bench/products.py` measures both.

    Args:
        a: (N, K).
        b: (M, K), any strides.
        bias: (M,) or None.

    Returns:
        (N, M).
    """
    if HAS_ONEDNN and a.device.type == "cpu" and a.dtype == torch.float32 and a.numel() > 0:
        result: Tensor = torch.ops.mkldnn._linear_pointwise(a, b, bias, "none", [], "")
        return result
    return nn.functional.linear(a, b, bias)


def product_dtype(x: Tensor) -> torch.dtype:
    """What products of x run in: autocast's dtype where it is on, else x's own."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


class RepeatedProduct:
    """a·bᵀ + addend for many small a and the same b, which is laid out for the processor once.

    With the 20 rows of an LSTM's time step, rearranging b costs as much as the product itself; done once for a whole
    sequence it costs nothing.

    Args:
        b: (M, K), any strides.
        rows: N of the a to come; others work, slower.
    """

    def __init__(self, b: Tensor, rows: int) -> None:
        self._is_packed = HAS_ONEDNN and b.device.type == "cpu" and b.dtype == torch.float32 and b.numel() > 0
        self._b = torch.ops.mkldnn._reorder_linear_weight(b, rows) if self._is_packed else b

    def add(self, a: Tensor, addend: Tensor) -> Tensor:
        """Rows a (N, K), addend (N, M) → a·bᵀ + addend (N, M), a new tensor."""
        if self._is_packed and a.numel():
            result: Tensor = torch.ops.mkldnn._linear_pointwise.binary(a, addend, self._b, None, "add")
            return result
        return torch.addmm(addend, a, self._b.t())

    def multiply(self, a: Tensor) -> Tensor:
        """Rows a (N, K) → a·bᵀ (N, M)."""
        if self._is_packed and a.numel():
            result: Tensor = torch.ops.mkldnn._linear_pointwise(a, self._b, None, "none", [], "")
            return result
        return a @ self._b.t()
