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


STRIP = 512


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


def transposed(a: Tensor) -> Tensor:
    """(N, M) → (M, N), contiguous: in strips of rows, which stay in the cache, where torch goes through all of them."""
    result = a.new_empty(a.shape[1], a.shape[0])
    for start in range(0, a.shape[0], STRIP):
        result[:, start : start + STRIP].copy_(a[start : start + STRIP].t())
    return result


def product_dtype(x: Tensor) -> torch.dtype:
    """Dtype of products of x: autocast's where it is on, else x's own."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
