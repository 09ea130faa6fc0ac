"""The plan `spread`: the cells of an update dealt over the ranks of a process group, and added up in one all-reduce."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor

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
        overlap: whether gradients are sent while the last backward of an update still computes others. The sums are the
            same to the last bit.

    Source: Hoffer et al. 2020, section 4.5: nodes that load the same batch, each with its own augmentation.
    """

    rank: int
    size: int
    group: dist.ProcessGroup | None = None
    overlap: bool = False

    @classmethod
    def of(cls, group: dist.ProcessGroup | None = None) -> Ranks:
        """This process's place in an initialised process group (the default one).

        Sending overlaps with computing where that doesn't take from computing: over NCCL, which has streams of its own.
        Gloo adds up on the very cores that the backward runs on (`recipes/bench/scaling.py` measures both).
        """
        overlap = dist.get_backend(group) == "nccl"
        return cls(dist.get_rank(group), dist.get_world_size(group), group, overlap)

    def cells(self, shards: int, copies: int) -> list[tuple[int, range]]:
        """The cells of this rank: for each of its shards, in order, which copies.

        The S × M cells are laid out shard after shard, and each rank takes one stretch of them; the stretches differ by
        one cell at most. So a rank sees as few shards as can be, and the copies of one shard lie on neighbouring ranks.
        Where there are more ranks than cells, those without one have an empty range of the copies of some shard.
        """
        total = shards * copies
        first, last = (total * place // self.size for place in (self.rank, self.rank + 1))
        return [
            (shard, range(max(first - shard * copies, 0), min(last - shard * copies, copies)))
            for shard in range(first // copies, max(-(-last // copies), first // copies + 1))
        ]

    def check(self, shards: int, copies: int) -> None:
        """Refuses ranks that would have no cell.

        Raises:
            ValueError: if there are more ranks than cells.
        """
        total = shards * copies
        if self.size > total:
            raise ValueError(
                f"{self.size} ranks for {shards} shards × {copies} copies = {total} cells: take at most {total} ranks, "
                "or more shards or copies"
            )

    def holders(self, shards: int, copies: int) -> list[range]:
        """For each shard the ranks that `cells` gives it to, which are neighbours."""
        of_ranks = [{shard for shard, _ in replace(self, rank=rank).cells(shards, copies)} for rank in range(self.size)]
        holding = [[rank for rank in range(self.size) if shard in of_ranks[rank]] for shard in range(shards)]
        return [range(ranks[0], ranks[-1] + 1) for ranks in holding]

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Adds up each tensor over the ranks, in place; all ranks call it with the same shapes and dtypes."""
        messages = [self.send(bucket) for bucket in _buckets(tensors)]
        for message in messages:
            self.receive(message)

    def send(self, tensors: list[Tensor]) -> Message:
        """Puts one message of `add_up` on its way."""
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        with talking():
            return Message(tensors, flat, dist.all_reduce(flat, group=self.group, async_op=True))

    def receive(self, message: Message) -> None:
        """Waits until a message has been added up by all, and writes the sums over its tensors."""
        with talking():
            if message.work is not None:
                message.work.wait()
        sizes = [tensor.numel() for tensor in message.tensors]
        for tensor, part in zip(message.tensors, torch.split(message.flat, sizes), strict=True):
            tensor.copy_(part.view_as(tensor))

    def gather(self, value: Value) -> list[Value]:
        """What each rank has, in the order of the ranks, on all of them; small things, which are pickled on the way."""
        values: list[Value | None] = [None] * self.size
        with talking():
            dist.all_gather_object(values, value, group=self.group)
        return cast("list[Value]", values)

    def broadcast(self, value: Value | None) -> Value:
        """What the first rank has, on all of them: any value that can be pickled; what the others give is ignored."""
        values = [value]
        with talking():
            dist.broadcast_object_list(values, group=self.group, group_src=0)
        return cast(Value, values[0])


@contextmanager
def talking() -> Iterator[None]:
    """Inside, whatever goes wrong is the loss of the others: torch has no type of its own for it.

    Raises:
        RanksLost: in place of any `RuntimeError`.
    """
    try:
        yield
    except RuntimeError as error:
        raise RanksLost(str(error).partition("\n")[0]) from error


@dataclass(frozen=True)
class Message:
    """Tensors that are being added up over the ranks, as one flat copy of them all."""

    tensors: list[Tensor]
    flat: Tensor
    work: dist.Work | None


class GradientExchange:
    """Adds up the gradients of one update, each bucket as soon as the last backward is through with it.

    A backward finishes the last layers first, so buckets are filled from the last parameter on. They leave in that
    order on every rank, whichever is full first, and whether or not they leave early: the sums are the same.

    Args:
        ranks: the processes.
        parameters: that have a gradient on any rank; the same on each.
    """

    def __init__(self, ranks: Ranks, parameters: Sequence[Tensor]) -> None:
        self._ranks = ranks
        self._buckets = list(_buckets(parameters[::-1]))
        self._places = {id(tensor): place for place, bucket in enumerate(self._buckets) for tensor in bucket}
        self._missing: list[int] = []
        self._messages: list[Message] = []

    @property
    def has_begun(self) -> bool:
        """Whether a message has left: the update can't be tried again from here on."""
        return bool(self._messages)

    @contextmanager
    def last_backward(self) -> Iterator[None]:
        """Inside runs the update's last backward on this rank; where ranks overlap, gradients leave when it made them.

        Raises:
            RuntimeError: from the backward, where it adds to a gradient that has left (a layer that is computed again
                inside a backward of its own).
        """
        if not self._ranks.overlap:
            yield
            return
        self._missing = [len(bucket) for bucket in self._buckets]  # anew where an attempt ran out of memory
        handles = [
            tensor.register_post_accumulate_grad_hook(self._finished)  # type: ignore[no-untyped-call]
            for bucket in self._buckets
            for tensor in bucket
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def add_up(self) -> None:
        """Sends what hasn't left, and waits for everything; a parameter without a gradient counts as zeros."""
        while len(self._messages) < len(self._buckets):
            self._send_next()
        for message in self._messages:
            self._ranks.receive(message)

    def _finished(self, parameter: Tensor) -> None:
        place = self._places[id(parameter)]
        if place < len(self._messages):
            raise RuntimeError("a gradient came in parts, and its first part has left already: take overlap=False")
        self._missing[place] -= 1
        while len(self._messages) < len(self._buckets) and not self._missing[len(self._messages)]:
            self._send_next()

    def _send_next(self) -> None:
        gradients = []
        for parameter in self._buckets[len(self._messages)]:
            if parameter.grad is None:  # another rank's cells may have reached it
                parameter.grad = torch.zeros_like(parameter)
            gradients.append(parameter.grad)
        self._messages.append(self._ranks.send(gradients))


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
