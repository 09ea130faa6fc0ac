"""The cells of a grid: which rows a pass of some copies of a micro-batch sees."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, TypeVar

from seqba.rows.nested import count_rows
from seqba.rows.replicate import repeated, select_copies
from seqba.values import number_of_copies

Batch = TypeVar("Batch")


class Cells(Generic[Batch]):
    """The cells of a grid: S micro-batches × M copies, and the rows that a pass of some of them sees.

    Args:
        micro_batches: S batches of distinct examples.
        copies: M.
        replicated: whether the batches hold M·B rows already, copy-major, which may differ from copy to copy.
        forked: whether passes see the B rows, and copies begin inside the model.

    Raises:
        ValueError: if copies < 1, or for replicated batches in an update that forks.
    """

    def __init__(
        self, micro_batches: Sequence[Batch], copies: int, *, replicated: bool = False, forked: bool = False
    ) -> None:
        if replicated and forked:
            raise ValueError(
                "a replicated batch has copies from the beginning, and with forked=True they begin inside the model: "
                "pass the batch with each example once"
            )
        self.micro_batches = micro_batches
        self.copies = number_of_copies(copies)
        self.replicated = replicated
        self._forked = forked

    def batch(self, micro_batch: int) -> Batch:
        """A micro-batch, whose rows are checked here, alike for looped and for stacked copies."""
        batch = self.micro_batches[micro_batch]
        if self.copies > 1 and not self._forked and not self.replicated:
            count_rows(batch)
        return batch

    def rows(self, batch: Batch, copies: range) -> Batch:
        """The rows of some copies of a micro-batch, copy-major."""
        if self.replicated:
            return select_copies(batch, copies, self.copies)
        return batch if self._forked or len(copies) == 1 else repeated(batch, len(copies))
