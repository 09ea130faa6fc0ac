"""A batch → M copies of it, rows on dimension 0, copy-major."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from numbers import Number
from pathlib import PurePath
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

Batch = TypeVar("Batch")
Sample = TypeVar("Sample")


def replicate(batch: Batch, copies: int) -> Batch:
    """Repeats every row of a batch `copies` times, whole batch after whole batch.

    Row m·B + b of the result is copy m of example b: each copy is one contiguous slice, which is what lets a copy's
    noise be drawn into its own slice (`seqba.core.noise`).

    Args:
        batch: any nesting of tuples, named tuples, lists, mappings and dataclasses; every tensor in it has the B rows
            on dimension 0. Tensors without dimensions, numbers, strings and None are passed on as they are.
        copies: M, at least 1.

    Returns:
        The same nesting with tensors of M·B rows; for one copy the batch itself.

    Raises:
        ValueError: if `copies` < 1, or tensors disagree on the number of rows.
        TypeError: for a leaf whose rows can't be known (an array of another library, say).

    Source: Hoffer et al. 2020, section 2 ("M instances of the same input sample").
    """
    if copies < 1:
        raise ValueError(f"copies is {copies}; it must be at least 1")
    count_rows(batch)
    return batch if copies == 1 else cast(Batch, _map_tensors(batch, lambda tensor: _repeat(tensor, copies)))


def count_rows(batch: Any) -> int:
    """The number of rows B that all tensors of a batch share (0 for a batch without tensors).

    Raises:
        ValueError: if two tensors disagree.
    """
    rows = {tensor.shape[0] for tensor in iterate_tensors(batch) if tensor.dim() > 0}
    if len(rows) > 1:
        raise ValueError(f"tensors of a batch must share dimension 0 (its rows), but they have {sorted(rows)} rows")
    return rows.pop() if rows else 0


def iterate_tensors(batch: Any) -> Iterator[Tensor]:
    """The tensors of a nested batch, in order."""
    found: list[Tensor] = []

    def note(tensor: Tensor) -> Tensor:
        found.append(tensor)
        return tensor

    _map_tensors(batch, note)
    return iter(found)


def replicating_collate(collate_fn: Callable[[Sequence[Sample]], Batch], copies: int) -> Callable[..., Batch]:
    """Wraps a `DataLoader`'s collate function so that every batch holds `copies` of each example.

    For a loop that nobody may touch: with ordinary dropout each copy draws its own mask, and a loss that is a mean
    over rows then yields the mean gradient over copies. Memory grows with the copies, since all are in one pass.

    Raises:
        ValueError: if `copies` < 1 (at once, not in a worker).
    """
    if copies < 1:
        raise ValueError(f"copies is {copies}; it must be at least 1")
    return _ReplicatingCollate(collate_fn, copies)


@dataclasses.dataclass(frozen=True)
class _ReplicatingCollate:
    """A callable object rather than a closure: workers of a `DataLoader` may have to pickle it."""

    collate_fn: Callable[..., Any]
    copies: int

    def __call__(self, samples: Sequence[Any]) -> Any:
        return replicate(self.collate_fn(samples), self.copies)


def _repeat(tensor: Tensor, copies: int) -> Tensor:
    if tensor.dim() == 0:
        return tensor
    return tensor.repeat(copies, *([1] * (tensor.dim() - 1)))


def _map_tensors(batch: Any, function: Callable[[Tensor], Any]) -> Any:
    """The same nesting with `function` applied to every tensor."""
    if isinstance(batch, Tensor):
        return function(batch)
    if batch is None or isinstance(batch, (str, bytes, Number, PurePath, torch.dtype, torch.device)):
        return batch
    if dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        values = {field.name: _map_tensors(getattr(batch, field.name), function) for field in _init_fields(batch)}
        return dataclasses.replace(batch, **values)
    if isinstance(batch, Mapping):
        mapped = {key: _map_tensors(value, function) for key, value in batch.items()}
        if isinstance(batch, defaultdict):
            return defaultdict(batch.default_factory, mapped)
        return mapped if type(batch) is dict else cast(Any, type(batch))(mapped)
    if isinstance(batch, (tuple, list)):
        items = [_map_tensors(item, function) for item in batch]
        is_named = isinstance(batch, tuple) and hasattr(batch, "_fields")
        return type(batch)(*items) if is_named else type(batch)(items)
    raise TypeError(
        f"a batch may nest tuples, lists, mappings and dataclasses of tensors, but holds a {type(batch).__name__}"
    )


def _init_fields(batch: Any) -> list[dataclasses.Field[Any]]:
    return [field for field in dataclasses.fields(batch) if field.init]
