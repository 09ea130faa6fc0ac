"""Indices of a data set, repeated: every copy of an example is loaded by itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from typing import Any, cast

from torch.utils.data import Sampler

from seqba.values import number_of_copies


class RepeatingBatchSampler(Sampler[list[Any]]):
    """Yields each batch of indices `copies` times over, copy-major, as one batch.

    The data set loads every copy by itself, so that its random transforms are drawn anew for each, which
    `replicating_collate` can't do. B indices become M·B rows: row m·B + b is copy m of example b.

        DataLoader(dataset, batch_sampler=RepeatingBatchSampler(BatchSampler(sampler, 32, drop_last=False), copies=4))

    An epoch has as many batches as before, each `copies` times as large. Among processes the inner sampler is what
    deals the examples out (`DistributedSampler`), so that all copies of an example are in one batch of one process.

    Args:
        batch_sampler: yields batches: lists, tensors or other iterables of indices.
        copies: M, at least 1.

    Raises:
        ValueError: if `copies` < 1.
        TypeError: for a sampler that can't be iterated; while it is iterated, for one that yields single indices.

    Source: Hoffer et al. 2020, section 2: M transforms T_i of each sample, drawn independently.
    """

    def __init__(self, batch_sampler: Iterable[Iterable[Any]], copies: int) -> None:
        if not isinstance(batch_sampler, Iterable):
            raise TypeError(f"batch_sampler is {batch_sampler!r}; it must yield batches of indices")
        self.batch_sampler = batch_sampler
        self.copies = number_of_copies(copies)

    def __len__(self) -> int:
        """Number of batches, as of the inner sampler."""
        return len(cast(Sized, self.batch_sampler))

    def __iter__(self) -> Iterator[list[Any]]:
        """The inner sampler's batches, each `copies` times as long."""
        for indices in self.batch_sampler:
            yield self._indices(indices) * self.copies

    @property
    def sampler(self) -> Any:
        """What the inner sampler takes its indices from, if it has that: trainers look for it here."""
        return cast(Any, self.batch_sampler).sampler

    def set_epoch(self, epoch: int) -> None:
        """Tells the inner sampler, or what that takes its indices from, if either wants to know."""
        inners: tuple[Any, ...] = (self.batch_sampler, getattr(self.batch_sampler, "sampler", None))
        for inner in inners:
            if hasattr(inner, "set_epoch"):
                inner.set_epoch(epoch)
                return

    def _indices(self, batch: Iterable[Any]) -> list[Any]:
        try:
            if isinstance(batch, (str, bytes)):  # a key of a data set, not a batch of its letters
                raise TypeError
            return batch.tolist() if hasattr(batch, "tolist") and len(cast(Sized, batch)) else [*batch]
        except TypeError:
            raise TypeError(
                f"{type(self.batch_sampler).__name__} yields {batch!r}, a single index: wrap it, "
                "BatchSampler(sampler, batch_size, drop_last=False)"
            ) from None
