"""The processes of a run under torchrun: who they are, and what they must agree on."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

# Its functions have the default group for a default argument. The first optimizer imports it: were that after the group
# is made, it would never be taken down.
import torch.distributed.nn

from seqba.core import ALONE, Group
from seqba.distributed import Ranks, RanksLost, talking
from seqba.errors import UserError
from seqba.training.arms import Grid
from seqba.training.device import in_own_memory
from seqba.training.meeting import meet
from seqba.training.options import LogOptions, RunOptions


@contextmanager
def joined_ranks(device: torch.device, timeout_s: float) -> Iterator[Group]:
    """Joins the process group that torchrun's environment variables name, and leaves it at the end, all at once.

    Torchrun ends the others of a process that has left with a status, so that after a signal nobody may leave before
    the last checkpoint is written. A group that stands already is used as it is.

    Args:
        device: that this process computes on; GPUs talk through NCCL, CPUs through gloo.
        timeout_s: how long a process waits for the others before it gives up.

    Yields:
        This process's place; `ALONE` where it is alone.

    Raises:
        UserError: if the others can't be found.
        RanksLost: if one of them is lost; its group is left as it is then.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield ALONE
        return
    if dist.is_initialized():  # somebody's own program, which ends the group as well
        yield Ranks.of()
        return
    backend = "nccl" if device.type == "cuda" else "gloo"
    timeout = timedelta(seconds=timeout_s)
    try:
        met = meet(timeout_s)
        if met is None:
            dist.init_process_group(backend, timeout=timeout)
        else:
            store, rank, size = met
            dist.init_process_group(backend, timeout=timeout, store=store, rank=rank, world_size=size)
    except (ValueError, RuntimeError, TimeoutError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"the processes of this run don't find each other: {reason}; start them with torchrun"
        ) from None
    try:
        ranks = Ranks.of()
        yield ranks
        ranks.gather(None)
    except RanksLost as error:
        # Of what torch says: not the place in its source, nor whom to ask.
        reason = re.sub(r"^\[[^\]]*\] ", "", str(error)).partition(". ")[0]
        raise RanksLost(
            f"another rank has ended, or gave no answer within --distributed-timeout {timeout_s:g} s ({reason}): the "
            "last checkpoint stands, and the same command goes on from it"
        ) from None
    except BaseException:
        dist.destroy_process_group()
        raise
    dist.destroy_process_group()


def check_ranks(ranks: Group, grid: Grid, options: RunOptions) -> None:
    """Refuses more ranks than an update has cells, in any epoch, and options of several ranks where there is one.

    Raises:
        UserError: with the numbers.
    """
    if ranks is ALONE:
        if options.broadcast_batches:
            raise UserError("--broadcast-batches is for several processes: start them with torchrun, or leave it out")
        if options.shard_params:
            raise UserError("--shard-params is for several processes: start them with torchrun, or leave it out")
    else:
        try:
            ranks.check(min(grid.shards_per_epoch), grid.copies)
        except ValueError as error:
            raise UserError(f"{error} (--update-freq, --copies)") from None


@dataclass(frozen=True)
class BatchBroadcast:
    """Reads every batch once: the first of the ranks that have copies of a shard reads it and sends it to the others.

    Attributes:
        ranks: the processes of the run.
        copies: M.
        timeout_s: how long a rank waits for the one that reads.
    """

    ranks: Ranks
    copies: int
    timeout_s: float
    _groups: dict[range, dist.ProcessGroup | None] = field(default_factory=dict, init=False)

    def load(self, shards: int, read: Callable[[int], Any]) -> dict[int, Any]:
        """The batches of this rank's shards, of an update of `shards`; all ranks must call it, in every update.

        Args:
            shards: S of this update.
            read: number of a shard → its batch; called for those that are this rank's to read.

        Raises:
            UserError: that `read` raised, on all ranks with a copy of that batch.
            RanksLost: if one of them is lost.
        """
        holders = self.ranks.holders(shards, self.copies)
        for sharing in holders:
            if sharing not in self._groups:  # batches lie in the memory of the CPU, whatever trains
                with talking():
                    group = dist.new_group(list(sharing), timedelta(seconds=self.timeout_s), "gloo")
                self._groups[sharing] = group if self.ranks.rank in sharing else None
        own = [number for number in range(shards) if self.ranks.rank in holders[number]]
        batches = {number: self._shared(holders[number], number, read) for number in own}
        for batch in batches.values():
            if isinstance(batch, UserError):  # not before: others wait for what this rank sends them
                raise whose(batch)
        return batches

    def _shared(self, sharing: range, number: int, read: Callable[[int], Any]) -> Any:
        """A batch, or the error of the rank that reads it."""
        batch: Any = None
        if self.ranks.rank == sharing.start:
            batch = attempted(lambda: in_own_memory(read(number)))
        if len(sharing) > 1:
            batch = Ranks.of(self._groups[sharing]).broadcast(batch)
        return batch


def summed(ranks: Group, numbers: Sequence[float], device: torch.device) -> list[float]:
    """Each number added up over the ranks; the same on all of them. All ranks must call it."""
    told = torch.tensor(numbers, dtype=torch.float64, device=device)
    ranks.add_up([told])
    values: list[float] = told.tolist()
    return values


def attempted(read: Callable[[], Any]) -> Any:
    """What was read, or the error that says why it can't be."""
    try:
        return read()
    except UserError as error:
        return error


def is_unread(read: object) -> float:
    """1 for what couldn't be read here, to be added up over the ranks."""
    return float(isinstance(read, UserError))


def whose(read: object) -> UserError:
    """The error of this rank, told anew, or a word about another's.

    Anew, for an error that is raised where it is kept holds itself by its traceback, and so whatever the functions in
    there know, groups of ranks for instance, until Python's end.
    """
    if isinstance(read, UserError):
        return UserError(str(read))
    return UserError("another rank can't read what it needs, and says why: mend it, and the same command goes on")


def quiet_but_first(options: LogOptions, ranks: Group) -> LogOptions:
    """The log of this process: only the first rank tells anything."""
    if ranks.is_first:
        return options
    return replace(options, log_format="none", log_file=None, tensorboard_logdir=None, no_progress_bar=False)
