"""The processes of a run under torchrun: who they are, and what they must agree on."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta

import torch
import torch.distributed as dist

from seqba.core import Ranks, RanksLost
from seqba.errors import UserError
from seqba.training.arms import Grid
from seqba.training.options import LogOptions


def is_first(ranks: Ranks | None) -> bool:
    """Whether this process is the one that writes: files, log lines, progress."""
    return ranks is None or ranks.rank == 0


@contextmanager
def joined_ranks(device: torch.device, timeout_s: float) -> Iterator[Ranks | None]:
    """Joins the process group that torchrun's environment variables name, and leaves it at the end.

    A group that stands already is used as it is.

    Args:
        device: that this process computes on; GPUs talk through NCCL, CPUs through gloo.
        timeout_s: how long a process waits for the others before it gives up.

    Yields:
        This process's place; None where it is alone.

    Raises:
        UserError: if the others can't be found.
        RanksLost: if one of them is lost; its group is left as it is then.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield None
        return
    if dist.is_initialized():  # somebody's own program, which ends the group as well
        yield Ranks.of()
        return
    backend = "nccl" if device.type == "cuda" else "gloo"
    try:
        dist.init_process_group(backend, timeout=timedelta(seconds=timeout_s))
    except (ValueError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"the processes of this run don't find each other: {reason}; start them with torchrun"
        ) from None
    try:
        yield Ranks.of()
    except RanksLost as error:
        raise RanksLost(
            f"another rank has ended, or gave no answer within --distributed-timeout {timeout_s:g} s ({error}): the "
            "last checkpoint stands, and the same command goes on from it"
        ) from None
    except BaseException:
        dist.destroy_process_group()
        raise
    dist.destroy_process_group()


def check_ranks(ranks: Ranks | None, grid: Grid) -> None:
    """Refuses more ranks than an update has cells, in any epoch.

    Raises:
        UserError: with the numbers.
    """
    if ranks is not None:
        try:
            ranks.cells(min(grid.shards_per_epoch), grid.copies)
        except ValueError as error:
            raise UserError(f"{error} (--update-freq, --copies)") from None


def summed(ranks: Ranks | None, numbers: Sequence[float], device: torch.device) -> list[float]:
    """Each number added up over the ranks; the same on all of them. All ranks must call it."""
    if ranks is None:
        return [float(number) for number in numbers]
    told = torch.tensor(numbers, dtype=torch.float64, device=device)
    ranks.add_up([told])
    values: list[float] = told.tolist()
    return values


def quiet_but_first(options: LogOptions, ranks: Ranks | None) -> LogOptions:
    """The log of this process: only the first rank tells anything."""
    if is_first(ranks):
        return options
    return replace(options, log_format="none", log_file=None, tensorboard_logdir=None, no_progress_bar=False)
