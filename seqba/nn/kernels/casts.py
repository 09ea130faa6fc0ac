"""Weights in the dtype of products: cast once for all passes of an update, where the update says so.

And what a GPU needs no cast for at all: products and sums in the dtype of the weights.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from seqba.nn.kernels.products import product

HALVES = (torch.bfloat16, torch.float16)
# A plain global: CUDA's backward threads, which may recompute a layer, must see it too.
_shared: MutableMapping[Tensor, tuple[int, Tensor]] | None = None


@contextmanager
def shared_casts(*, enabled: bool = True) -> Iterator[None]:
    """Inside, a weight is cast to a narrower dtype once, and all passes multiply by that cast.

    Autocast casts weights anew in each forward. The gradients stay those of the wide weights, and add up there. Costs
    the narrow weights' memory until the end. A weight that is written to inside is cast again.

    A GPU, where a launch costs more than the cast, keeps them from one update to the next, and casts all weights that
    the update before has cast in one kernel.

    Args:
        enabled: False for weights whose memory comes and goes with the layer (sharded ones).
    """
    global _shared, _of_last_update
    outer = _shared
    _shared = _renewed() if enabled else None
    try:
        yield
        _of_last_update = _on_gpu(_shared)
    finally:
        _shared = outer


_of_last_update: MutableMapping[Tensor, tuple[int, Tensor]] = WeakIdKeyDictionary()


def _on_gpu(casts: MutableMapping[Tensor, tuple[int, Tensor]] | None) -> MutableMapping[Tensor, tuple[int, Tensor]]:
    """The casts of parameters on a GPU."""
    kept: MutableMapping[Tensor, tuple[int, Tensor]] = WeakIdKeyDictionary()
    for weight, cast in list((casts or {}).items()):
        if weight.device.type != "cpu" and weight.is_leaf:
            kept[weight] = cast
    return kept


def _renewed() -> MutableMapping[Tensor, tuple[int, Tensor]]:
    """What an update begins with: the casts of the last one, made again in one kernel, but of weights that moved."""
    alive = [(weight, kept) for weight, kept in _of_last_update.items() if _fits(kept[1], weight)]
    if alive:
        torch._foreach_copy_([cast for _, (_, cast) in alive], [weight.detach() for weight, _ in alive])
    casts: MutableMapping[Tensor, tuple[int, Tensor]] = WeakIdKeyDictionary()
    for weight, (_, cast) in alive:
        casts[weight] = (weight._version, cast)
    return casts


def _fits(cast: Tensor, weight: Tensor) -> bool:
    return cast.device == weight.device and cast.shape == weight.shape


def narrow(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """The weight in `dtype`, without a gradient: itself, the cast that passes share, or a new one."""
    if weight.dtype == dtype:
        return weight
    if _shared is None:
        return weight.to(dtype)
    version, cast = _shared.get(weight, (-1, weight))
    if version != weight._version or cast.dtype != dtype:
        cast = weight.detach().to(dtype)
        _shared[weight] = (weight._version, cast)
    return cast


def shared_cast(weight: Tensor, dtype: torch.dtype) -> Tensor | None:
    """The cast that passes share, for a product's backward; None where they don't, or the weight has that dtype."""
    return None if _shared is None or weight.dtype == dtype else narrow(weight, dtype)


def has_wide_products(device: torch.device) -> bool:
    """Whether torch multiplies 16-bit matrices into float32 on a device: 2.8 and later, on NVIDIA's GPUs."""
    return device.type == "cuda" and torch.version.cuda is not None and hasattr(torch.ops.aten.mm, "dtype")


def product_as(a: Tensor, b: Tensor, dtype: torch.dtype) -> Tensor:
    """a·bᵀ in the dtype of a weight: (N, K), (M, K) → (N, M); by NVIDIA without rounding to 16 bits in between."""
    if a.dtype in HALVES and dtype == torch.float32 and has_wide_products(a.device):
        wide: Tensor = torch.ops.aten.mm.dtype(a, b.t(), dtype)
        return wide
    return product(a, b).to(dtype)


def sum_as(a: Tensor, dtype: torch.dtype) -> Tensor:
    """The sum of rows (N, M) → (M,) in the dtype of a bias; on a GPU without rounding to 16 bits in between."""
    return a.sum(0).to(dtype) if a.device.type == "cpu" else a.sum(0, dtype=dtype)
