"""The plan `spread`: the cells of an update dealt over the ranks of a process group, and added up in one all-reduce."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from seqba.core.finish import Finishing

Value = TypeVar("Value")

BUCKET_BYTES = 32 << 20
"""Tensors are copied together into buckets of this size, each a message that is on its way while the next is filled."""


class RanksLost(RuntimeError):
    """Another rank has ended, or didn't answer in time."""


@dataclass(frozen=True)
class Ranks:
    """The processes that compute an update together, and which of them this is.

    Each has the same weights and calls with the same arguments; afterwards each has the same gradient, to the last bit.
    What a rank computes doesn't enter any key: the draws are those of the cell, wherever it runs.

    All methods that talk to the others raise `RanksLost` where one of them has ended or doesn't answer.

    Attributes:
        rank: of this process, from 0.
        size: how many there are.
        group: their process group; None for the default one.

    Source: Hoffer et al. 2020, section 4.5: nodes that load the same batch, each with its own augmentation.
    """

    rank: int
    size: int
    group: dist.ProcessGroup | None = None

    @classmethod
    def of(cls, group: dist.ProcessGroup | None = None) -> Ranks:
        """This process's place in an initialised process group (the default one)."""
        return cls(dist.get_rank(group), dist.get_world_size(group), group)

    def cells(self, shards: int, copies: int) -> list[tuple[int, range]]:
        """The cells of this rank: for each of its shards, in order, which copies.

        The S × M cells are laid out shard after shard, and each rank takes one stretch of them; the stretches differ by
        one cell at most. So a rank sees as few shards as can be, and the copies of one shard lie on neighbouring ranks.

        Raises:
            ValueError: if there are more ranks than cells.
        """
        total = shards * copies
        if self.size > total:
            raise ValueError(
                f"{self.size} ranks for {shards} shards × {copies} copies = {total} cells: take at most {total} ranks, "
                "or more shards or copies"
            )
        first, last = (total * place // self.size for place in (self.rank, self.rank + 1))
        return [
            (shard, range(max(first - shard * copies, 0), min(last - shard * copies, copies)))
            for shard in range(first // copies, -(-last // copies))
        ]

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Adds up each tensor over the ranks, in place; all ranks call it with the same shapes and dtypes."""
        on_the_way = []
        for bucket in _buckets(tensors):
            flat = torch.cat([tensor.reshape(-1) for tensor in bucket])
            with self._talking():
                on_the_way.append((bucket, flat, dist.all_reduce(flat, group=self.group, async_op=True)))
        for bucket, flat, work in on_the_way:
            with self._talking():
                if work is not None:
                    work.wait()
            sizes = [tensor.numel() for tensor in bucket]
            for tensor, part in zip(bucket, torch.split(flat, sizes), strict=True):
                tensor.copy_(part.view_as(tensor))

    def gather(self, value: Value) -> list[Value]:
        """What each rank has, in the order of the ranks, on all of them; small things, which are pickled on the way."""
        values: list[Value | None] = [None] * self.size
        with self._talking():
            dist.all_gather_object(values, value, group=self.group)
        return cast("list[Value]", values)

    @contextmanager
    def _talking(self) -> Iterator[None]:
        """Inside, whatever goes wrong is the loss of the others: torch has no type of its own for it."""
        try:
            yield
        except RuntimeError as error:
            raise RanksLost(str(error).partition("\n")[0]) from error


def gathered(model: nn.Module) -> Iterator[Tensor]:
    """What the modules of a model have gathered in the passes of this rank, to be added up over all of them."""
    for module in model.modules():
        if isinstance(module, Finishing):
            yield from module.gathered()


def _buckets(tensors: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    """The tensors in order, in lists of one dtype and device and of about `BUCKET_BYTES`."""
    bucket: list[Tensor] = []
    held = 0
    for tensor in tensors:
        alike = not bucket or (bucket[0].dtype, bucket[0].device) == (tensor.dtype, tensor.device)
        if bucket and (not alike or held + tensor.nbytes > BUCKET_BYTES):
            yield bucket
            bucket, held = [], 0
        bucket.append(tensor)
        held += tensor.nbytes
    if bucket:
        yield bucket
