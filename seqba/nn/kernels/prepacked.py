"""Linear layers for a model that reads the same weights many times: decoding, one token at a time."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from seqba.nn.kernels.processor import processor
from seqba.nn.kernels.products import HAS_ONEDNN, are_finite, product, transposed

Product = Callable[[Tensor], Tensor]
MakeLayer = Callable[[Tensor, "Tensor | None"], nn.Module]
"""Makes the layer of a weight (E, D) and its bias (E,), or None."""

OUTPUT_MULTIPLE = 32
"""Outputs of a layer by which oneDNN's kernels of 16 and of 8 bits go."""

MANY_ROWS = 512
"""Rows whose products gain more from blocks than copying a weight into them costs."""


class PackedLayer(nn.Module):
    """A linear layer whose weight oneDNN has laid out, `packed`; it never changes, and products alone can read it."""

    packed: Tensor

    def plus(self, x: Tensor, other: Tensor) -> Tensor:
        """The layer's output for x (N, D), and other (N, E) of its dtype added to it: (N, E)."""
        result: Tensor = self(x)
        return result.add_(other)

    def __deepcopy__(self, memo: dict[int, Any]) -> PackedLayer:
        """A copy that shares the laid-out weight, of which torch can't make another one."""
        memo[id(self.packed)] = self.packed
        twin = memo[id(self)] = object.__new__(type(self))
        twin.__dict__ = copy.deepcopy(self.__dict__, memo)
        return twin


class PrepackedLinear(PackedLayer):
    """x·Wᵀ + b, with W copied into blocks (prepacked), the order in which oneDNN's kernels read it.

    Products of few rows are bound by how fast W comes from memory. So laid out, 4 to 512 rows take between a third and
    four fifths of the time that MKL needs; the copy costs as much as two products of few rows. oneDNN compiles
    a kernel for each new number of rows, half a millisecond each. There is no gradient through this layer.

    Args:
        weight: (E, D) float32, or bfloat16 on a processor that multiplies it. What happens to it later changes nothing
            here.
        bias: (E,) or None.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.packed = _in_blocks(weight)
        self.bias = bias
        self._rectifies = are_finite(weight, bias)

    def forward(self, x: Tensor, *, is_rectified: bool = False) -> Tensor:
        """(N, D) in the weight's dtype → (N, E); max(0, x·Wᵀ + b) in the same kernel if asked for.

        That kernel makes 0 of NaN, so that weights that aren't finite are rectified after it.
        """
        is_fused = is_rectified and self._rectifies
        activation = "relu" if is_fused else "none"
        result: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, activation, [], "")
        return result.relu_() if is_rectified and not is_fused else result

    def plus(self, x: Tensor, other: Tensor) -> Tensor:
        """x·Wᵀ + b + other (N, E) in one kernel, which rounds to the dtype once, at the end."""
        result: Tensor = torch.ops.mkldnn._linear_pointwise.binary(x, other, self.packed, self.bias, "add")
        return result


def can_prepack(weight: Tensor) -> bool:
    """Whether `PrepackedLinear` takes this weight on this machine, and no autocast asks for another dtype."""
    if torch.is_autocast_enabled("cpu"):
        return False
    if weight.dtype == torch.bfloat16:
        return can_prepack_narrow(weight)
    return HAS_ONEDNN and weight.device.type == "cpu" and weight.dtype == torch.float32


class PaddedOutputs(nn.Module):
    """A linear layer in another number of outputs: weights and biases of zero, whose outputs are left away.

    oneDNN's kernels of 16 and of 8 bits take up to twice as long where E isn't a multiple of 32, as the number of words
    often isn't.

    Args:
        layer: makes the layer of a weight (E', D) and its bias.
        weight: (E, D), floating.
        bias: (E,) or None.
    """

    def __init__(self, layer: MakeLayer, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.outputs = len(weight)
        missing = -self.outputs % OUTPUT_MULTIPLE
        padded_bias = None if bias is None else nn.functional.pad(bias.detach(), (0, missing))
        self.layer = layer(nn.functional.pad(weight.detach(), (0, 0, 0, missing)), padded_bias)

    def forward(self, x: Tensor) -> Tensor:
        """(N, D) → (N, E), a part of a larger tensor."""
        result: Tensor = self.layer(x)[:, : self.outputs]
        return result


def padded_outputs(layer: MakeLayer, weight: Tensor, bias: Tensor | None) -> nn.Module:
    """The layer of a weight (E, D) and its bias, with `PaddedOutputs` where E isn't a multiple of 32."""
    return PaddedOutputs(layer, weight, bias) if len(weight) % OUTPUT_MULTIPLE else layer(weight, bias)


def prepacked_product(weight: Tensor, bias: Tensor | None = None) -> Product:
    """The product x (N, D) → x·Wᵀ + b (N, E) for the weight (E, D), in blocks where `can_prepack`.

    In bfloat16 the result may be a part of a larger tensor (`PaddedOutputs`).
    """
    if can_prepack(weight):
        is_narrow = weight.dtype == torch.bfloat16
        return padded_outputs(PrepackedLinear, weight, bias) if is_narrow else PrepackedLinear(weight, bias)
    return partial(nn.functional.linear, weight=weight, bias=bias)


def chunked_product(weight: Tensor, bias: Tensor | None, rows: int) -> Product:
    """The product x (N, D) → x·Wᵀ + b (N, E) of training, for `rows` rows, a chunk of them at a time.

    Where it is worth a copy of the weight (E, D), for many rows: in blocks on AMD's processors with AVX-512; for AMX's
    tiles in columns, which oneDNN would make of it for each chunk, and takes twice the time.
    """
    plain = partial(product, b=weight, bias=bias)
    if rows < MANY_ROWS:
        return plain
    if processor().is_wide_amd and can_prepack(weight):
        return PrepackedLinear(weight, bias)
    if processor().has_amx and can_prepack_narrow(weight) and weight.dtype == torch.bfloat16 and weight.is_contiguous():
        columns = transposed(weight)
        return lambda x: torch.mm(x, columns) if bias is None else torch.addmm(bias, x, columns)
    return plain


def prepacked_sum(weight: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """The sum x (N, D), other (N, E) → x·Wᵀ + other for the weight (E, D): one kernel, packed where `can_prepack`."""
    if not can_prepack(weight):
        return lambda x, other: torch.addmm(other, x, weight.t())
    blocks = _in_blocks(weight)
    add = torch.ops.mkldnn._linear_pointwise.binary
    return lambda x, other: add(x, other, blocks, None, "add")


def can_prepack_narrow(weight: Tensor) -> bool:
    """Whether bfloat16 products of this weight run from blocks on this machine: with instructions for them."""
    return HAS_ONEDNN and weight.device.type == "cpu" and processor().has_bfloat16


def prepacked_wide_sum(weight: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """The sum x (N, D), other (N, E) → x·Wᵀ + other in other's dtype, for a bfloat16 weight (E, D), copied into blocks.

    The product alone is rounded to bfloat16.
    """
    blocks = _in_blocks(weight)
    multiply = torch.ops.mkldnn._linear_pointwise
    return lambda x, other: multiply(x.to(weight.dtype), blocks, None, "none", [], "").to(other.dtype).add_(other)


def _in_blocks(weight: Tensor) -> Tensor:
    """A copy of a weight (E, D) in the order in which oneDNN's kernels read it."""
    blocks: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), None)
    return blocks


def prepacked(module: nn.Module) -> nn.Module:
    """The same module with its linear layers in blocks where `can_prepack`; shares everything else with `module`."""
    return with_linear_layers(module, _prepacked_layer)


def _prepacked_layer(layer: nn.Linear) -> nn.Module:
    return PrepackedLinear(layer.weight, layer.bias) if can_prepack(layer.weight) else layer


def with_linear_layers(module: nn.Module, change: Callable[[nn.Linear], nn.Module]) -> nn.Module:
    """The same module with `change` of its linear layers in their place; shares everything else with `module`."""
    if isinstance(module, nn.Linear):
        return change(module)
    children = {name: child and with_linear_layers(child, change) for name, child in module._modules.items()}
    if all(child is module._modules[name] for name, child in children.items()):
        return module
    twin = object.__new__(type(module))  # not `copy`, which a sharded module refuses
    twin.__dict__ = {**module.__dict__, "_modules": children}
    return twin
