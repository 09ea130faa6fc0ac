"""Adds tensors up over the processes of a group, in buckets: one is on its way while the next is filled."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.distributed as dist
from torch import Tensor

BUCKET_BYTES = 32 << 20
"""Tensors are copied together into buckets of this size, each a message."""


@dataclass(frozen=True)
class Message:
    """Tensors that are being added up over the ranks, as one flat copy of them all."""

    tensors: list[Tensor]
    flat: Tensor
    work: dist.Work | None


class Sender(Protocol):
    """Interface to what sends messages and waits for them (`Ranks`)."""

    @property
    def overlap(self) -> bool:
        """Whether they are sent while the last backward of an update still computes others."""
        ...

    def send(self, tensors: list[Tensor]) -> Message:
        """Puts a message on its way."""
        ...

    def receive(self, message: Message) -> None:
        """Waits until it has been added up, and writes the sums over its tensors."""
        ...

    def add_up(self, sums: Sequence[Tensor]) -> None:
        """Adds up each tensor, in place."""
        ...


class GradientExchange:
    """Adds up the gradients of one update, each bucket as soon as the last backward is through with it.

    A backward finishes the last layers first, so buckets are filled from the last parameter on. They leave in that
    order on every rank, whichever is full first, and whether or not they leave early: the sums are the same.

    Args:
        ranks: the processes.
        parameters: that have a gradient on any rank; the same on each.
    """

    def __init__(self, ranks: Sender, parameters: Sequence[Tensor]) -> None:
        self._ranks = ranks
        self._buckets = list(buckets(parameters[::-1]))
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

    def add_up(self, sums: Sequence[Tensor] = ()) -> None:
        """Sends what hasn't left, waits for everything, and adds up `sums` too, in place.

        A parameter without a gradient counts as zeros.
        """
        while len(self._messages) < len(self._buckets):
            self._send_next()
        for message in self._messages:
            self._ranks.receive(message)
        if sums:
            self._ranks.add_up(sums)

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


def buckets(tensors: Iterable[Tensor]) -> Iterator[list[Tensor]]:
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
