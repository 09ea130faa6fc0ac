"""The cells of an update dealt over the ranks of a process group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from seqba.distributed.all_reduce import GradientExchange, Message, buckets
from seqba.distributed.lost import collective_errors
from seqba.distributed.sharding import check_sharding, is_sharded
from seqba.modules.walk import modules_of, trained_parameters

Value = TypeVar("Value")


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

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that writes: files, log lines, progress."""
        return self.rank == 0

    def cells(self, micro_batches: int, copies: int, rank: int | None = None) -> list[tuple[int, range]]:
        """The cells of a rank (this one): for each of its micro-batches, in order, which copies.

        The S × M cells are laid out micro-batch after micro-batch, and each rank takes one stretch of them; the
        stretches differ by one cell at most. So a rank sees as few micro-batches as can be, and the copies of one
        micro-batch lie on neighbouring ranks. Where there are more ranks than cells, those without one have an empty
        range of the copies of some micro-batch.
        """
        total = micro_batches * copies
        own = self.rank if rank is None else rank
        first, last = (total * place // self.size for place in (own, own + 1))
        return [
            (micro_batch, range(max(first - micro_batch * copies, 0), min(last - micro_batch * copies, copies)))
            for micro_batch in range(first // copies, max(-(-last // copies), first // copies + 1))
        ]

    def check(self, micro_batches: int, copies: int) -> None:
        """Refuses ranks that would have no cell.

        Raises:
            ValueError: if there are more ranks than cells.
        """
        total = micro_batches * copies
        if self.size > total:
            raise ValueError(
                f"{self.size} ranks for {micro_batches} micro-batches × {copies} copies = {total} cells: take at most "
                f"{total} ranks, or more micro-batches or copies"
            )

    def check_model(self, model: nn.Module) -> None:
        """Refuses a model whose gradients somebody else's FSDP takes means of, or whose embeddings have sparse ones.

        Raises:
            ValueError: for such a model.
        """
        check_sharding(model)
        for module in modules_of(model):
            is_table = isinstance(module, (nn.Embedding, nn.EmbeddingBag))
            if is_table and module.sparse and module.weight.requires_grad:
                raise ValueError(
                    f"{type(module).__name__}(sparse=True) has a sparse gradient, which ranks= doesn't add up: make it "
                    "without sparse, or wrap the model in DistributedDataParallel"
                )

    def passes_together(self, model: nn.Module) -> bool:
        """Whether the parameters of a model are sharded: every pass gathers them from all ranks."""
        return is_sharded(model)

    def exchange(self, model: nn.Module) -> GradientExchange:
        """Exchange that adds up the gradients of an update; a sharded model's are added up by its backward."""
        return GradientExchange(self, [] if is_sharded(model) else trained_parameters(model))

    def holders(self, micro_batches: int, copies: int) -> list[range]:
        """For each micro-batch the ranks that `cells` gives it to, which are neighbours."""
        of_ranks = [
            {micro_batch for micro_batch, _ in self.cells(micro_batches, copies, rank)} for rank in range(self.size)
        ]
        holding = [
            [rank for rank in range(self.size) if micro_batch in of_ranks[rank]] for micro_batch in range(micro_batches)
        ]
        return [range(ranks[0], ranks[-1] + 1) for ranks in holding]

    def add_up(self, sums: Sequence[Tensor]) -> None:
        """Adds up each tensor over the ranks, in place; all ranks call it with the same shapes and dtypes."""
        messages = [self.send(bucket) for bucket in buckets(sums)]
        for message in messages:
            self.receive(message)

    def send(self, tensors: list[Tensor]) -> Message:
        """Puts one message of `add_up` on its way."""
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        with collective_errors():
            return Message(tensors, flat, dist.all_reduce(flat, group=self.group, async_op=True))

    def receive(self, message: Message) -> None:
        """Waits until a message has been added up by all, and writes the sums over its tensors."""
        with collective_errors():
            if message.work is not None:
                message.work.wait()
        sizes = [tensor.numel() for tensor in message.tensors]
        for tensor, part in zip(message.tensors, torch.split(message.flat, sizes), strict=True):
            tensor.copy_(part.view_as(tensor))

    def gather(self, value: Value) -> list[Value]:
        """Values of all ranks, in their order, on each of them; small things, which are pickled on the way."""
        values: list[Value | None] = [None] * self.size
        with collective_errors():
            dist.all_gather_object(values, value, group=self.group)
        return cast("list[Value]", values)

    def broadcast(self, value: Value | None) -> Value:
        """Value of the first rank, on all of them: anything that can be pickled; what the others give is ignored."""
        values = [value]
        with collective_errors():
            dist.broadcast_object_list(values, group=self.group, group_src=0)
        return cast(Value, values[0])
