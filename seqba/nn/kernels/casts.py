"""Weights in the dtype of products: cast once for all passes of an update, where the update says so."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

# A plain global: CUDA's backward threads, which may recompute a layer, must see it too.
_shared: MutableMapping[Tensor, tuple[int, Tensor]] | None = None


@contextmanager
def shared_casts(*, enabled: bool = True) -> Iterator[None]:
    """Inside, a weight is cast to a narrower dtype once, and all passes multiply by that cast.

    Autocast casts weights anew in each forward. The gradients stay those of the wide weights, and add up there. Costs
    the narrow weights' memory until the end. A weight that is written to inside is cast again.

    Args:
        enabled: False for weights whose memory comes and goes with the layer (sharded ones).
    """
    global _shared
    outer = _shared
    _shared = WeakIdKeyDictionary() if enabled else None
    try:
        yield
    finally:
        _shared = outer


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
