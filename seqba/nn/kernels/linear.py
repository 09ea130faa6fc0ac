"""Linear layers that keep less for the backward, and recompute the rest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from seqba.nn.kernels.backwards import once_differentiable
from seqba.nn.kernels.casts import narrow
from seqba.nn.kernels.prepacked import PrepackedLinear
from seqba.nn.kernels.products import linear_gradients, linear_product, product, product_as, product_dtype, sum_as


def norm_linear(
    x: Tensor, norm: nn.LayerNorm, layer: nn.Linear, *, is_rectified: bool = False
) -> tuple[Tensor, Tensor]:
    """Layer normalisation and the linear layer that reads it.

        y = LN(x),  z = y·Wᵀ + b,  or max(0, y·Wᵀ + b)

    A linear layer keeps its input for its weight's gradient, so that LN and linear one after the other store both x
    and y. Here x alone is kept, and y is normalised again in the backward: N·D numbers less, for one pass over them. A
    GPU keeps y in the dtype of the product, 16 bits under autocast: there launches count, and N·D numbers don't.

    Args:
        x: (N, D), floating.
        norm: over the last dimension, with weight and bias.
        layer: D → E, with a bias.
        is_rectified: whether a ReLU follows the layer, which is computed with it.

    Returns:
        (y (N, D), z (N, E)); y is what a residual connection goes on from. z has autocast's dtype under autocast.
    """
    if _is_plain():
        normalised = norm(x)
        return normalised, _plain_linear(normalised, layer, is_rectified=is_rectified)
    y, z = _NormLinear.apply(  # type: ignore[no-untyped-call]
        x, norm.weight, norm.bias, layer.weight, layer.bias, norm.eps, is_rectified
    )
    return y, z


def linear(x: Tensor, layer: nn.Linear, *, is_rectified: bool = False) -> Tensor:
    """A plain linear layer, through the products of training where there is a gradient to take.

    Args:
        x: (N, D), floating.
        layer: D → E, with a bias.
        is_rectified: whether a ReLU follows the layer, which is computed with it.

    Returns:
        (N, E), in autocast's dtype under autocast.
    """
    if _is_plain():
        return _plain_linear(x, layer, is_rectified=is_rectified)
    z: Tensor = _Linear.apply(x, layer.weight, layer.bias, is_rectified)  # type: ignore[no-untyped-call]
    return z


def linears(x: Tensor, layers: Sequence[nn.Linear]) -> list[Tensor]:
    """Several linear layers of the same rows, z_i = x·W_iᵀ + b_i; one product for all of them where `can_join`.

    Args:
        x: (N, D), floating.
        layers: D → E each, with biases.

    Returns:
        (N, E) for each layer, in autocast's dtype under autocast; slices of one tensor where that is one product.
    """
    if _is_plain() or not can_join(x, layers):
        return [linear(x, layer) for layer in layers]
    weights, biases = [layer.weight for layer in layers], [layer.bias for layer in layers]
    return list(_Linears.apply(x, len(layers), *weights, *biases))  # type: ignore[no-untyped-call]


def can_join(x: Tensor, layers: Sequence[nn.Linear]) -> bool:
    """Whether `linears` makes one product of these: on a GPU, of weights that this process has whole.

    A sharded weight (a `DTensor`) is whole in the forward of its own layer alone.
    """
    return _is_on_gpu(x) and not any(hasattr(layer.weight, "to_local") for layer in layers)


def gathered_linear(x: Tensor, index: Tensor | None, layer: nn.Linear) -> Tensor:
    """A linear layer on some of the rows: z = x[index]·Wᵀ + b.

    x is kept for the backward rather than x[index]: where x is kept anyway, as attention keeps its output, that costs
    nothing.

    Args:
        x: (N', D), floating.
        index: (N,) int64, rows of x, each at most once; None for all of them.
        layer: D → E, with a bias.

    Returns:
        (N, E), in autocast's dtype under autocast.
    """
    if index is None:
        return linear(x, layer)
    if _is_plain():
        plain: Tensor = layer(x.index_select(0, index))
        return plain
    z: Tensor = _GatheredLinear.apply(x, index, layer.weight, layer.bias)  # type: ignore[no-untyped-call]
    return z


def _is_on_gpu(x: Tensor) -> bool:
    return not x.is_cpu


def _is_plain() -> bool:
    """Whether layers are torch's own: where there is no gradient to take, and where a compiler fuses them itself."""
    return not torch.is_grad_enabled() or torch.compiler.is_compiling()


def _plain_linear(x: Tensor, layer: nn.Module, *, is_rectified: bool) -> Tensor:
    if isinstance(layer, PrepackedLinear):
        rectified: Tensor = layer(x, is_rectified=is_rectified)
        return rectified
    z: Tensor = layer(x)
    return nn.functional.relu(z, inplace=True) if is_rectified else z  # the product before it isn't needed again


def _before_rectifier(grad: Tensor, rectified: Sequence[Tensor]) -> Tensor:
    """The gradient by what a ReLU read, from that by its result, which is in `rectified` where there is a ReLU."""
    return torch.ops.aten.threshold_backward(grad, *rectified, 0) if rectified else grad


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, is_rectified: bool) -> Tensor:
        z, _, ctx.cast = linear_product(x, weight, bias, is_rectified=is_rectified)
        ctx.save_for_backward(x, weight, *([z] if is_rectified else []))
        return z

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, *rectified = ctx.saved_tensors
        return *linear_gradients(_before_rectifier(grads[0], rectified), x, weight, ctx.cast), None


class _Linears(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, count: int, *parameters: Tensor) -> tuple[Tensor, ...]:
        dtype = product_dtype(x)
        weight = torch.cat([narrow(weight, dtype) for weight in parameters[:count]])
        bias = torch.cat([narrow(bias, dtype) for bias in parameters[count:]])
        rows = x.to(dtype)
        ctx.save_for_backward(rows, weight)
        ctx.count, ctx.dtype, ctx.weight_dtype = count, x.dtype, parameters[0].dtype
        return product(rows, weight, bias).chunk(count, dim=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        grad_z = torch.cat(grads, dim=1)
        by_x = product_as(grad_z, weight.t(), ctx.dtype)
        by_weight = product_as(grad_z.t(), x.t(), ctx.weight_dtype)
        return by_x, None, *by_weight.chunk(ctx.count), *sum_as(grad_z, ctx.weight_dtype).chunk(ctx.count)


class _NormLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        norm_weight: Tensor,
        norm_bias: Tensor,
        weight: Tensor,
        bias: Tensor,
        eps: float,
        is_rectified: bool,
    ) -> tuple[Tensor, Tensor]:
        y, mean, deviation = torch.native_layer_norm(x, x.shape[1:], norm_weight, norm_bias, eps)
        z, rows, ctx.cast = linear_product(y, weight, bias, is_rectified=is_rectified)
        kept = [] if x.is_cpu and rows.dtype == x.dtype else [rows]
        rectified = [z] if is_rectified else []
        ctx.save_for_backward(x, norm_weight, norm_bias, weight, mean, deviation, *rectified, *kept)
        ctx.eps, ctx.is_rectified = eps, is_rectified
        ctx.set_materialize_grads(False)  # pre-norm layers leave y alone
        return y, z

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor | None, grad_z: Tensor) -> tuple[Tensor | None, ...]:
        x, norm_weight, norm_bias, weight, mean, deviation, *kept = ctx.saved_tensors
        grad_z = _before_rectifier(grad_z, [kept.pop(0)] if ctx.is_rectified else [])
        y = kept[0] if kept else nn.functional.layer_norm(x, x.shape[1:], norm_weight, norm_bias, ctx.eps)
        through, grad_weight, grad_bias = linear_gradients(grad_z, y, weight, ctx.cast, x.dtype)
        del y, kept
        grad_y = through if grad_y is None else through.add_(grad_y)
        grad_x, grad_norm_weight, grad_norm_bias = torch.ops.aten.native_layer_norm_backward(
            grad_y, x, x.shape[1:], mean, deviation, norm_weight, norm_bias, [True, True, True]
        )
        return grad_x, grad_norm_weight, grad_norm_bias, grad_weight, grad_bias, None, None


class _GatheredLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, index: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, index, weight)
        z, _, ctx.cast = linear_product(x.index_select(0, index), weight, bias)
        return z

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad_z,) = grads
        x, index, weight = ctx.saved_tensors
        rows, grad_weight, grad_bias = linear_gradients(grad_z, x.index_select(0, index), weight, ctx.cast)
        grad_x = torch.zeros_like(x).index_copy_(0, index, rows)
        return grad_x, None, grad_weight, grad_bias
