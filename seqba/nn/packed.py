"""Linear layers for a model that reads the same weights many times: decoding, one token at a time."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from seqba.nn.products import HAS_ONEDNN


class PackedLinear(nn.Module):
    """x·Wᵀ + b, with W copied into the order in which oneDNN's kernels read it.

    Products of few rows are bound by how fast W comes from memory. Packed, 4 to 512 rows take between a third and four
    fifths of the time that MKL needs; the copy costs as much as two to four such products of few rows.

    There is no gradient through it.

    Args:
        weight: (E, D) float32, on the CPU. What happens to it later does not change this layer.
        bias: (E,) or None.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), None)
        self.bias = bias

    def forward(self, x: Tensor) -> Tensor:
        """(N, D) float32 → (N, E)."""
        product: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, "none", [], "")
        return product


def can_pack(weight: Tensor) -> bool:
    """Whether `PackedLinear` takes this weight on this machine, and no autocast asks for another dtype."""
    plain = weight.device.type == "cpu" and weight.dtype == torch.float32
    return HAS_ONEDNN and plain and not torch.is_autocast_enabled("cpu")


def packed_product(weight: Tensor) -> Callable[[Tensor], Tensor]:
    """The product x (N, D) → x·Wᵀ (N, E) for the weight (E, D), packed where `can_pack`."""
    return PackedLinear(weight, None) if can_pack(weight) else partial(nn.functional.linear, weight=weight)


def packed(module: nn.Module) -> nn.Module:
    """The same module with its linear layers packed where `can_pack`; shares everything else with `module`."""
    if isinstance(module, nn.Linear):
        return PackedLinear(module.weight, module.bias) if can_pack(module.weight) else module
    children: dict[str, nn.Module | None] = {name: packed(child) for name, child in module.named_children()}
    if all(child is module.get_submodule(name) for name, child in children.items()):
        return module
    twin = copy.copy(module)
    twin._modules = children
    return twin
