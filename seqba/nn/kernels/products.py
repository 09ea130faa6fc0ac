"""Matrix products of training: the faster of torch's two libraries for each kind of product on x86."""

from __future__ import annotations

import platform

import torch
from torch import Tensor, nn

from seqba.nn.kernels.casts import narrow, shared_cast
from seqba.nn.kernels.processor import Processor, onednn_has_bfloat16, processor

HAS_ONEDNN = (
    platform.machine().lower() in ("x86_64", "amd64")
    and bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
    and hasattr(torch.ops.mkldnn, "_linear_pointwise")
)
"""Whether torch was built with oneDNN and offers its linear layer as an operator."""

HAS_MKL = bool(torch.backends.mkl.is_available())  # type: ignore[no-untyped-call]
"""Whether torch.mm is MKL's, in float32."""

HALVES = (torch.bfloat16, torch.float16)
HAS_WIDE_PRODUCTS = torch.version.cuda is not None and hasattr(torch.ops.aten.mm, "dtype")

STRIP = 512
"""Rows that are transposed at a time."""

NARROW_STRIP = 64
"""The same for many rows of few columns, as of a layer's input: two thirds of the time, in bfloat16."""

NARROW_COLUMNS = 1024
"""What few columns are."""

MANY_COLUMNS = 512
"""Columns beyond which torch's sum of rows takes longer than a product with ones."""


def product(a: Tensor, b: Tensor, bias: Tensor | None = None, *, is_rectified: bool = False) -> Tensor:
    """a·bᵀ + bias, the product of a linear layer; rectified, max(0, a·bᵀ + bias), if asked for.

    torch multiplies float32 on a CPU with MKL, which leaves a part of some processors unused (AMD's, for one). oneDNN
    is built into the same torch and compiles its kernels for the processor at hand; torch reaches its linear layer
    only through the operator that its own compiler emits. The choice depends on types and the machine alone, never
    on timing, so that a resumed run multiplies as it did before. `recipes/bench/products.py` measures both.
    Where a processor multiplies bfloat16 more slowly than float32, numbers are widened first, and the result rounded.

    Args:
        a: (N, K), any strides.
        b: (M, K), any strides.
        bias: (M,) or None.
        is_rectified: whether negative numbers become 0; oneDNN does it while a result is still in the registers, where
            a ReLU of its own reads and writes all of it once more. oneDNN's makes 0 of NaN, too: weights that aren't
            finite go the other way, so that they are found out.

    Returns:
        (N, M).
    """
    if not HAS_ONEDNN or not a.is_cpu or a.numel() == 0:
        return _torch_product(a, b, bias, is_rectified=is_rectified)
    if is_widened(a, a.dtype):
        return _widened_product(a, b, bias, is_rectified=is_rectified).to(a.dtype)
    if takes_linear_operator(a, b, bias, processor()):
        is_fused = is_rectified and are_finite(b, bias)
        result: Tensor = torch.ops.mkldnn._linear_pointwise(a, b, bias, "relu" if is_fused else "none", [], "")
        return result.relu_() if is_rectified and not is_fused else result
    left = transposed(a.t()) if is_transposed_first(a, b, processor()) else a
    return _torch_product(left, b, bias, is_rectified=is_rectified)


def are_finite(weight: Tensor, bias: Tensor | None) -> bool:
    """Whether a layer's weight (E, D) and bias (E,) hold neither NaN nor ±∞, by their sum, which would be one."""
    total = weight.sum(dtype=torch.float32)
    return bool((total if bias is None else total + bias.sum()).isfinite())


def _torch_product(a: Tensor, b: Tensor, bias: Tensor | None, *, is_rectified: bool) -> Tensor:
    result = nn.functional.linear(a, b, bias)
    return result.relu_() if is_rectified else result


def linear_product(
    x: Tensor, weight: Tensor, bias: Tensor, *, is_rectified: bool = False
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The forward of a linear layer, z = x·Wᵀ + b or max(0, x·Wᵀ + b), in autocast's dtype where that is on.

    Args:
        x: (N, D), floating.
        weight: (E, D).
        bias: (E,).
        is_rectified: whether a ReLU follows, which is computed with the product.

    Returns:
        z (N, E), x in its dtype, and the cast of W that passes share, for `linear_gradients`; None where they don't.
    """
    dtype = product_dtype(x)
    rows = x if x.dtype == dtype else x.to(dtype)
    if weight.dtype == dtype == bias.dtype:
        return product(rows, weight, bias, is_rectified=is_rectified), rows, None
    cast = shared_cast(weight, dtype)
    own = narrow(weight, dtype) if cast is None else cast
    return product(rows, own, narrow(bias, dtype), is_rectified=is_rectified), rows, cast


def linear_gradients(
    grad_z: Tensor, x: Tensor, weight: Tensor, cast: Tensor | None, dtype: torch.dtype | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """The backward of a linear layer: gradients of z = x·Wᵀ + b by x, W and b, each in its own dtype.

    Args:
        grad_z: (N, E), in the dtype of z.
        x: (N, D), floating.
        weight: (E, D).
        cast: W in z's dtype, if it is at hand.
        dtype: of the gradient by x; None for x's own.
    """
    wide, own = weight.dtype, grad_z.dtype
    if cast is None:
        cast = weight if wide == own else weight.to(own)
    by_x = product_as(grad_z, cast.t(), dtype or x.dtype)
    return by_x, *_parameter_gradients(grad_z, x if x.dtype == own else x.to(own), wide)


def _parameter_gradients(grad_z: Tensor, x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Gradients of z = x·Wᵀ + b by W, grad_zᵀ·x, and by b, the sum of grad_z's rows, in `dtype`.

    In AMX's tiles both are one product, of x with a column of ones, where x is the narrower side (`is_turned`).

    Args:
        grad_z: (N, E).
        x: (N, D), in the same dtype.
        dtype: of the parameters.
    """
    if not is_turned(grad_z, x, processor()):
        return product_as(grad_z.t(), x.t(), dtype), sum_as(grad_z, dtype)
    inputs = x.shape[1]
    columns = x.new_empty(inputs + 1, len(x))
    transpose_into(columns[:inputs], x)
    columns[inputs].fill_(1)
    both = product(columns, grad_z.t())  # (D + 1, E)
    return transposed(both[:inputs]).to(dtype), both[inputs].to(dtype)


def product_as(a: Tensor, b: Tensor, dtype: torch.dtype) -> Tensor:
    """a·bᵀ in the dtype of a weight: (N, K), (M, K) → (N, M); not rounded to 16 bits first where it needn't be."""
    if a.dtype in HALVES and dtype == torch.float32 and has_wide_products(a.device):
        wide: Tensor = torch.ops.aten.mm.dtype(a, b.t(), dtype)
        return wide
    if dtype == torch.float32 and is_widened(a, a.dtype):
        return _widened_product(a, b)
    result = product(a, b)
    return result if result.dtype == dtype else result.to(dtype)


def sum_as(a: Tensor, dtype: torch.dtype) -> Tensor:
    """The sum of rows (N, M) → (M,) in the dtype of a bias; on a GPU without rounding to 16 bits in between.

    torch goes through many columns in narrow strips. As a product with ones, which reads rows as they lie, that takes
    half of the time in float32.
    """
    if not a.is_cpu:
        return a.sum(0, dtype=dtype)
    if a.dtype == torch.float32 and a.shape[1] > MANY_COLUMNS:
        return torch.mv(a.t(), a.new_ones(len(a))).to(dtype)
    return a.sum(0).to(dtype)


def has_wide_products(device: torch.device) -> bool:
    """Whether torch multiplies 16-bit matrices into float32 on a device: 2.8 and later, on NVIDIA's GPUs."""
    return device.type == "cuda" and HAS_WIDE_PRODUCTS


def _widened_product(a: Tensor, b: Tensor, bias: Tensor | None = None, *, is_rectified: bool = False) -> Tensor:
    wide = (a.float(), b.float(), None if bias is None else bias.float())
    if not torch.is_autocast_enabled("cpu"):
        return product(*wide, is_rectified=is_rectified)
    with torch.autocast("cpu", enabled=False):  # which would narrow them again
        return product(*wide, is_rectified=is_rectified)


def is_widened(like: Tensor, dtype: torch.dtype) -> bool:
    """Whether products of `dtype` are made of float32 numbers: bfloat16 on a CPU that multiplies float32 faster."""
    return dtype == torch.bfloat16 and like.is_cpu and processor().widens_bfloat16


def takes_linear_operator(a: Tensor, b: Tensor, bias: Tensor | None, processor: Processor) -> bool:
    """Whether a·bᵀ + bias on a CPU goes through oneDNN's linear layer rather than torch.mm and torch.addmm.

    float32, Intel's processors: for a layer with a bias, which torch.addmm writes into the result first; MKL is faster
    in all else, by a twentieth for gradients by an input and a third for those by a weight. On AMD's with AVX-512: all
    but gradients by a weight with no fewer outputs than inputs, where MKL takes nine tenths; on others everything.
    bfloat16, where torch.mm is oneDNN too: for a bias likewise.
    """
    if a.dtype == torch.float32:
        return not (HAS_MKL and _takes_mkl(a, b, bias, processor))
    return a.dtype == torch.bfloat16 and processor.has_bfloat16 and bias is not None


def _takes_mkl(a: Tensor, b: Tensor, bias: Tensor | None, processor: Processor) -> bool:
    if processor.is_intel:
        return bias is None
    return processor.is_wide_amd and _is_by_weight(a) and a.shape[0] >= b.shape[0]


def is_transposed_first(a: Tensor, b: Tensor, processor: Processor) -> bool:
    """Whether a is copied into row-major order before a·bᵀ: gradients by a weight with fewer outputs than inputs.

    oneDNN transposes a left side in AMX's tiles over and over, the more so the wider the right side is. Where a is the
    narrower of the two the copy takes a quarter of what the product gains.
    """
    return a.dtype == torch.bfloat16 and processor.has_amx and _is_by_weight(a) and a.shape[0] < b.shape[0]


def is_turned(grad_z: Tensor, x: Tensor, processor: Processor) -> bool:
    """Whether a gradient by a weight is computed as its transpose, xᵀ·grad_z, with x copied into columns before.

    What `is_transposed_first` says of the left side, for layers with more outputs than inputs: there x is the narrower
    side. Copying it and turning the result take a quarter of what the product gains.

    Args:
        grad_z: (N, E).
        x: (N, D), in the same dtype.
        processor: that multiplies.
    """
    return x.is_cpu and x.dtype == torch.bfloat16 and processor.has_amx and 0 < x.shape[1] < grad_z.shape[1]


def _is_by_weight(a: Tensor) -> bool:
    """Whether a is a transposed matrix, as in a gradient by a weight."""
    return a.stride(0) == 1 and a.stride(1) > 1


def describe_products(dtype: torch.dtype) -> str:
    """Which libraries multiply `dtype` on this machine's processor, for a run's log."""
    if dtype == torch.bfloat16 and HAS_ONEDNN and processor().widens_bfloat16:
        return f"{describe_products(torch.float32)}; widened to float32, which is faster here"
    if not HAS_ONEDNN or (dtype == torch.bfloat16 and not onednn_has_bfloat16()):
        return "torch.mm"
    if dtype == torch.bfloat16:
        return "oneDNN, in AMX tiles" if processor().has_amx else "oneDNN"
    rows = torch.empty(2, 3)
    if takes_linear_operator(rows.t(), rows.t(), None, processor()):
        return "oneDNN"
    if not takes_linear_operator(rows, rows, None, processor()):
        return "oneDNN, MKL for gradients"
    return "oneDNN, MKL for gradients by weights of no fewer outputs than inputs"


def transposed(a: Tensor) -> Tensor:
    """(N, M) → (M, N), contiguous."""
    result = a.new_empty(a.shape[1], a.shape[0])
    transpose_into(result, a)
    return result


def transpose_into(result: Tensor, a: Tensor) -> None:
    """Writes the transpose of a (N, M) into result (M, N): in strips of rows, where torch goes through all of them."""
    rows, columns = a.shape
    strip = NARROW_STRIP if columns < rows and columns <= NARROW_COLUMNS else STRIP
    for start in range(0, rows, strip):
        result[:, start : start + strip].copy_(a[start : start + strip].t())


def product_dtype(x: Tensor) -> torch.dtype:
    """Dtype of products of x: autocast's where it is on, else x's own."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
