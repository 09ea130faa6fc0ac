"""The plan: grid of micro-batches × copies → passes. It says where cells run and never changes what the update is."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn
from torch.utils.weak import WeakIdKeyDictionary

from seqba.noise.fork import Trunk
from seqba.runtime.activations import SavedBytes, room_bytes


@dataclass
class Plan:
    """How many copies of a micro-batch go into one pass.

    `stacked` takes all M (fewest, largest kernels), `looped` one (1/M of the memory), an integer that many, and `auto`
    as many as fit: it runs the first copy alone, counts the bytes that its forward keeps for the backward, and stacks
    the copies that the device has room for from then on.

    Attributes:
        copies_per_pass: the number in force; None for all of them, and for `auto` until it has measured. A checkpoint
            that keeps it makes a resumed run group copies as before, to the last bit.
        is_auto: whether the number is measured, and lowered when memory runs out.
    """

    copies_per_pass: int | None = None
    is_auto: bool = False

    def needs_measuring(self, copies: int) -> bool:
        """Whether the first copy must run alone, to be weighed."""
        return self.is_auto and self.copies_per_pass is None and copies > 1

    def measured(self, bytes_per_copy: int, device: torch.device, *, shared_bytes: int = 0) -> None:
        """Chooses the copies per pass from the weight of one copy; an update with fewer copies takes them all.

        Args:
            bytes_per_copy: that a copy's forward keeps.
            device: that it runs on.
            shared_bytes: that are kept once for all copies, below a fork.
        """
        self.copies_per_pass = max(1, (room_bytes(device) - shared_bytes) // max(bytes_per_copy, 1))

    def passes(self, copies: range) -> Iterator[range]:
        """The copies of each pass, in order; each is planned when it is asked for: by then the plan may have measured.

        Args:
            copies: of a micro-batch, that run on this process.
        """
        first = copies.start
        while first < copies.stop:
            size = 1 if self.needs_measuring(copies.stop) else self.copies_per_pass or copies.stop
            yield range(first, min(first + size, copies.stop))
            first += size

    @contextmanager
    def measuring(self, model: nn.Module, trunk: Trunk | None, copies: int) -> Iterator[None]:
        """Inside runs the forward of a pass; where it is the first one, the bytes that it keeps are counted.

        Args:
            model: whose forward it is.
            trunk: of a pass that forks: what is below is kept once for all copies.
            copies: M.
        """
        if not self.needs_measuring(copies):
            yield
            return
        saved = SavedBytes(model)
        if trunk is not None:
            trunk.weigh = saved.so_far
        with saved.counting():
            yield
        shared = 0 if trunk is None else trunk.saved_bytes
        self.measured(saved.total - shared, saved.device, shared_bytes=shared)

    def shrink(self, copies: range) -> bool:
        """Halves the copies per pass after a pass ran out of memory; False where there is nothing to halve."""
        if not self.is_auto or len(copies) <= 1:
            return False
        self.copies_per_pass = len(copies) // 2
        return True


PlanLike = Plan | int | Literal["auto", "stacked", "looped"]


def parse_plan(plan: PlanLike | str) -> Plan:
    """`auto`, `stacked`, `looped` or a number of copies per pass → a `Plan`.

    Raises:
        ValueError: for anything else.
    """
    if isinstance(plan, Plan):
        return plan
    if plan == "auto":
        return Plan(is_auto=True)
    if plan == "stacked":
        return Plan()
    if plan == "looped":
        return Plan(copies_per_pass=1)
    is_number = isinstance(plan, int) and not isinstance(plan, bool)
    if (is_number or (isinstance(plan, str) and plan.isdecimal())) and int(plan) >= 1:
        return Plan(copies_per_pass=int(plan))
    raise ValueError(f"plan is {plan!r}; choose auto, stacked, looped, or a number of copies per pass")


# What "auto" measured of each model; by identity, as a model may define what it is equal to.
_measured: MutableMapping[nn.Module, Plan] = WeakIdKeyDictionary()


def plan_for(model: nn.Module, plan: PlanLike, *, is_sharded: bool = False) -> Plan:
    """The plan of an update: `auto` measures each model once, not at every call.

    Where parameters are in parts on several processes `auto` is looped: all must run the same passes, and each would
    measure for itself.
    """
    chosen = _measured.setdefault(model, Plan(is_auto=True)) if plan == "auto" else parse_plan(plan)
    return parse_plan("looped") if chosen.is_auto and is_sharded else chosen
