"""A batch → M copies of it, rows on dimension 0, copy-major."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from seqba.rows.nested import count_rows, map_rows, own_parts
from seqba.values import number_of_copies

Batch = TypeVar("Batch")
Sample = TypeVar("Sample")


def replicate(batch: Batch, copies: int) -> Batch:
    """Repeats every row of a batch `copies` times, whole batch after whole batch.

    Row m·B + b of the result is copy m of example b: each copy is one contiguous slice, which is what lets a copy's
    noise be drawn into its own slice (`seqba.noise.noise`).

    | in the batch | what becomes of it |
    |---|---|
    | tensor with dimensions | repeated on dimension 0; dtype, device, memory format, gradient as they were |
    | list of numbers, strings, or of lists and dicts that hold no more than these | repeated: an item a row |
    | tuple of strings (`default_collate` makes these) | repeated: an item a row |
    | mapping, named tuple, dataclass; list or tuple with tensors in it | the same, of its repeated parts |
    | number, string, None, path, enum, dtype, device; `torch.Size`; tensor without dimensions | passed on |
    | tuple of numbers | refused: a size, or a number a row |
    | list of B mappings, named tuples or dataclasses of tensors | refused: one a row, or parts of the batch |
    | list of B lists of B numbers or strings | refused: rows of the one or of the others |
    | packed, nested, sparse, quantized tensor; tensor of a subclass | refused |
    | array of another library, set, range, iterator, distribution, any other object | refused |
    | rows of different numbers, none at all | refused |

    What is refused is refused for one copy as well, so that every plan takes the same batches. A tensor is taken at its
    word: flat values with offsets, or a list of B tensors that are of B rows each by chance, can't be told apart from
    rows. A dataclass is made anew without its constructor, and without what its `cached_property`s kept.

    Args:
        batch: any nesting of what the table repeats and passes on, with B rows.
        copies: M, at least 1.

    Returns:
        The same nesting with M·B rows; for one copy the batch itself.

    Raises:
        ValueError: if `copies` < 1, or parts of the batch disagree on the number of rows, or nothing has rows.
        TypeError: for what is refused, naming its place, its type and what to pass instead.

    Source: Hoffer et al. 2020, section 2 ("M instances of the same input sample").
    """
    copies = number_of_copies(copies)
    count_rows(batch)
    return batch if copies == 1 else repeated(batch, copies)


def repeated(batch: Batch, copies: int) -> Batch:
    """`replicate` of a batch whose rows have been counted, in containers and memory of its own, also for one copy."""
    if copies == 1:
        return own_parts(batch)
    return cast(Batch, map_rows(batch, lambda rows, _: repeat_rows(rows, copies)))


def select_copies(batch: Batch, copies: range, total: int) -> Batch:
    """The rows of some copies out of a batch that holds `total` copies already, copy-major.

    Args:
        batch: as `replicate` takes, with total·B rows, row m·B + b being copy m of example b.
        copies: neighbouring copies, within 0 … total − 1.
        total: M.

    Returns:
        The same nesting with len(copies)·B rows, tensors being views; for all copies the batch itself.

    Raises:
        ValueError: as `replicate`, and if the rows are no multiple of `total`, or there are no such copies.
        TypeError: as `replicate`.
    """
    total = number_of_copies(total)
    if not (copies and copies.step == 1 and 0 <= copies.start < copies.stop <= total):
        raise ValueError(f"{copies} aren't neighbouring copies of {total}")
    rows = count_rows(batch)
    if rows % total:
        raise ValueError(f"a replicated batch of {rows} rows can't hold {total} copies of each example, copy by copy")
    if len(copies) == total:
        return batch
    each = rows // total
    return cast(Batch, map_rows(batch, lambda part, _: part[copies.start * each : copies.stop * each]))


def labels_repeat(batch: Any, copies: int) -> bool | None:
    """Whether labels come again copy after copy, as in a batch of `copies` of each example.

    Labels are whole numbers, one a row: an int64 or int32 tensor (R,).

    Returns:
        True where any of the batch's are the same in each of its `copies` parts, False where none is, None for a batch
        that has none, or fewer than four different ones in a part: they may be the same by chance. None as well for
        classes in turn (0, 1, 2, 3, 0, 1, …), and for a batch with ids (R, T), where one number a row may be a text's
        length, which differs where words are cut anew.
    """
    found: list[Tensor] = []

    def look(rows: Any, _: str) -> Any:
        if isinstance(rows, Tensor) and rows.dtype in (torch.int64, torch.int32):
            found.append(rows)
        return rows

    map_rows(batch, look)
    if any(rows.dim() > 1 for rows in found):
        return None
    parts = [rows.view(copies, -1) for rows in found if len(rows) % copies == 0]
    parts = [rows for rows in parts if len(torch.unique(rows[0])) >= 4 and not _is_in_turn(rows[0])]
    return any(bool((rows == rows[0]).all()) for rows in parts) if parts else None


def _is_in_turn(labels: Tensor) -> bool:
    """Whether labels (R,) are those of some classes again and again, or each once in ascending order."""
    classes = torch.unique(labels)
    if len(labels) % len(classes):
        return False
    turns = labels.view(-1, len(classes))
    return bool((turns == (turns[0] if len(turns) > 1 else classes)).all())


def replicating_collate(collate_fn: Callable[[Sequence[Sample]], Batch], copies: int) -> Callable[..., Batch]:
    """Wraps a `DataLoader`'s collate function so that every batch holds `copies` of each example.

    For a loop that nobody may touch: with ordinary dropout each copy draws its own mask, and a loss that is a mean
    over rows then yields the mean gradient over copies. Memory grows with the copies, since all are in one pass.

    It repeats what the data set's transforms made: **all copies of an example share its random transforms**. For
    transforms that are drawn anew for each copy take `RepeatingBatchSampler`.

    Raises:
        ValueError: if `copies` < 1 (at once, not in a worker).
    """
    return _ReplicatingCollate(collate_fn, number_of_copies(copies))


@dataclasses.dataclass(frozen=True)
class _ReplicatingCollate:
    """A callable object rather than a closure: workers of a `DataLoader` may have to pickle it."""

    collate_fn: Callable[..., Any]
    copies: int

    def __call__(self, samples: Sequence[Any]) -> Any:
        return replicate(self.collate_fn(samples), self.copies)


def repeat_rows(rows: Any, copies: int) -> Any:
    """The rows of a tensor, or the items of a list, `copies` times one after the other, in new memory."""
    if not isinstance(rows, Tensor):
        return [row for _ in range(copies) for row in own_parts(rows)]
    if any(rows.is_contiguous(memory_format=layout) for layout in _formats(rows)):
        return torch.cat([rows] * copies)  # keeps these formats, whatever strides dimensions of one element have
    order = _memory_order(rows)
    repeated = torch.cat([rows.permute(order)] * copies, dim=order.index(0))
    return repeated.permute([order.index(dim) for dim in range(rows.dim())])


def _formats(tensor: Tensor) -> list[torch.memory_format]:
    channels_last = {4: [torch.channels_last], 5: [torch.channels_last_3d]}
    return [torch.contiguous_format, *channels_last.get(tensor.dim(), [])]


def _memory_order(tensor: Tensor) -> list[int]:
    """The dimensions from the one with the longest stride on, of memory without holes as PyTorch would lay it out."""
    strides = torch.empty_like(tensor, device="meta").stride()
    return sorted(range(tensor.dim()), key=lambda dim: -strides[dim])
