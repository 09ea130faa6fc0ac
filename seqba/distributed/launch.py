"""Processes that torchrun started, and how they find each other."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, cast

import torch
import torch.distributed as dist

# Its functions have the default group for a default argument. The first optimizer imports it: were that after the group
# is made, it would never be taken down.
import torch.distributed.nn

from seqba.distributed.ranks import Ranks
from seqba.distributed.rendezvous import meet
from seqba.errors import RanksLost, UserError
from seqba.group import ALONE, Group


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
        leave_group()
        raise
    leave_group()


def leave_group() -> None:
    """Ends the process group of this process, also while its threads let go of a collective's tensors.

    They need Python's lock for that where Python has forgotten the tensors. Torch 2.6 takes a group down, and waits for
    the threads of its backends, under that lock: forever. A backend that outlives its group lets go of the lock first.
    """
    backends = _backends()
    dist.destroy_process_group()
    backends.clear()


def _backends() -> list[dist.Backend]:
    group = cast(Any, dist.group.WORLD)
    return [group._get_backend(device) for device in group._device_types]
