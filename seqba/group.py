"""The processes that compute an update together, as far as the method needs to know them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol, TypeVar, cast, runtime_checkable

from torch import Tensor, nn

Value = TypeVar("Value")


class Exchange(Protocol):
    """Adds up the gradients of one update over the processes."""

    @property
    def has_begun(self) -> bool:
        """Whether anything has been sent: the update can't be tried again from here on."""
        ...

    def last_backward(self) -> AbstractContextManager[None]:
        """Inside runs the update's last backward of this process, so that gradients may leave as it makes them."""
        ...

    def add_up(self, sums: Sequence[Tensor]) -> None:
        """Adds up all gradients and these further tensors, in place; the same on every process afterwards."""
        ...


@runtime_checkable
class Group(Protocol):
    """The processes that compute an update together; `seqba.distributed.Ranks` is one, `ALONE` another.

    Each calls with the same model and the same arguments, runs its cells, and ends with the same gradient.
    """

    @property
    def rank(self) -> int:
        """Number of this process, from 0."""
        ...

    @property
    def size(self) -> int:
        """Number of processes."""
        ...

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that writes."""
        ...

    def cells(self, micro_batches: int, copies: int, rank: int | None = None) -> list[tuple[int, range]]:
        """The cells of a rank (this one): for each of its micro-batches, in order, which copies."""
        ...

    def check(self, micro_batches: int, copies: int) -> None:
        """Raises ValueError where a rank would have no cell."""
        ...

    def check_model(self, model: nn.Module) -> None:
        """Raises ValueError for a model whose gradients these processes would add up wrongly."""
        ...

    def passes_together(self, model: nn.Module) -> bool:
        """Whether every pass is a conversation of all processes, so that all must run equally many."""
        ...

    def exchange(self, model: nn.Module) -> Exchange:
        """What adds up the gradients of an update that begins now."""
        ...

    def add_up(self, sums: Sequence[Tensor]) -> None:
        """Adds up each tensor over the processes, in place."""
        ...

    def gather(self, value: Value) -> list[Value]:
        """The value of each process, in the order of the ranks, on all of them."""
        ...


class SingleProcess:
    """A group of this process alone, which has nothing to tell anybody."""

    rank = 0
    size = 1
    is_first = True
    has_begun = False

    def cells(self, micro_batches: int, copies: int, rank: int | None = None) -> list[tuple[int, range]]:
        """All of them."""
        return [(number, range(copies)) for number in range(micro_batches)]

    def check(self, micro_batches: int, copies: int) -> None:
        """Accepts any grid."""

    def check_model(self, model: nn.Module) -> None:
        """Refuses a model whose parameters are in parts on several processes.

        Raises:
            ValueError: for a model of `seqba.distributed.shard_parameters`.
        """
        if group_of(model) is not None:
            raise ValueError("the parameters are sharded, and their gradients added up over the ranks: pass ranks=")

    def passes_together(self, model: nn.Module) -> bool:
        """Never."""
        return False

    def exchange(self, model: nn.Module) -> SingleProcess:
        """Itself: there is nothing to send."""
        return self

    def last_backward(self) -> AbstractContextManager[None]:
        """Changes nothing."""
        return nullcontext()

    def add_up(self, sums: Sequence[Tensor]) -> None:
        """Leaves the sums as they are."""

    def gather(self, value: Value) -> list[Value]:
        """The one value."""
        return [value]


ALONE = SingleProcess()
"""This process alone. A group of one process is another thing: it is seeded and added up as any group is."""


def divided_micro_batches(group: Group, micro_batches: int, copies: int) -> list[int]:
    """Numbers of the micro-batches whose copies aren't all on one process."""
    dealt = [cell for rank in range(group.size) for cell in group.cells(micro_batches, copies, rank)]
    return sorted({number for number, own in dealt if 0 < len(own) < copies})


_GROUP = "_seqba_group"


def attach_group(model: nn.Module, group: Group) -> None:
    """Notes that the parameters of a model are in parts on the processes of a group."""
    setattr(model, _GROUP, group)


def group_of(model: nn.Module) -> Group | None:
    """The processes over which the parameters of a model are in parts; None where each has them whole."""
    return cast("Group | None", getattr(model, _GROUP, None))
