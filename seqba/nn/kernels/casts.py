"""Weights in the dtype of products: cast once for all passes of an update, where the update says so."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(slots=True)
class _Cast:
    """A weight in a narrower dtype, and the version of the weight that it was made of."""

    weight: weakref.ref[Tensor]
    version: int
    narrow: Tensor


# By the weights' ids. Plain globals: CUDA's backward threads, which may recompute a layer, must see them too.
_shared: dict[int, _Cast] | None = None
_of_last_update: dict[int, _Cast] = {}


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
        _of_last_update = _on_gpu(_shared or {})
    finally:
        _shared = outer


def _on_gpu(casts: dict[int, _Cast]) -> dict[int, _Cast]:
    """The casts of parameters on a GPU."""
    weights = {key: cast.weight() for key, cast in casts.items() if not cast.narrow.is_cpu}
    return {key: casts[key] for key, weight in weights.items() if weight is not None and weight.is_leaf}


def _renewed() -> dict[int, _Cast]:
    """Casts that an update begins with: those of the last one, made again in one kernel, but of weights that moved."""
    kept = [(cast, cast.weight()) for cast in _of_last_update.values()]
    alive = [(cast, weight) for cast, weight in kept if weight is not None and _fits(cast.narrow, weight)]
    if alive:
        with torch.no_grad():
            torch._foreach_copy_([cast.narrow for cast, _ in alive], [weight for _, weight in alive])
    for cast, weight in alive:
        cast.version = weight._version
    return {id(weight): cast for cast, weight in alive}


def _fits(cast: Tensor, weight: Tensor) -> bool:
    return cast.get_device() == weight.get_device() and cast.shape == weight.shape


def narrow(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """The weight in `dtype`, without a gradient: itself, the cast that passes share, or a new one."""
    if weight.dtype == dtype:
        return weight
    return weight.to(dtype) if _shared is None else _shared_cast(_shared, weight, dtype)


def shared_cast(weight: Tensor, dtype: torch.dtype) -> Tensor | None:
    """The cast that passes share, for a product's backward; None where they don't, or the weight has that dtype."""
    return None if _shared is None or weight.dtype == dtype else _shared_cast(_shared, weight, dtype)


def casts_or_weights(casts: Iterable[Tensor | None], weights: Iterable[Tensor]) -> list[Tensor]:
    """Weights of a backward: the casts of its forward (`shared_cast`), a weight itself where there is none."""
    return [weight if cast is None else cast for cast, weight in zip(casts, weights, strict=True)]


def _shared_cast(casts: dict[int, _Cast], weight: Tensor, dtype: torch.dtype) -> Tensor:
    key = id(weight)
    cast = casts.get(key)
    if cast is None or cast.version != weight._version or cast.narrow.dtype != dtype or cast.weight() is not weight:
        forgetting = weakref.ref(weight, functools.partial(_forget, key))
        cast = casts[key] = _Cast(forgetting, weight._version, weight.detach().to(dtype))
    return cast.narrow


def _forget(key: int, _: weakref.ref[Tensor]) -> None:
    """A cast is kept no longer than its weight, whose id may become another one's."""
    for casts in (_shared, _of_last_update):
        if casts is not None:
            casts.pop(key, None)
