"""State that belongs to a cell: what a recurrent model carries from one update to the next, copy by copy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from seqba.group import ALONE, Group
from seqba.noise.context import current_noise

Cell = tuple[int, int]


class Carry:
    """The hidden states of a recurrent model, one for each (micro-batch, copy).

    A copy of a micro-batch has gone through its own noise in every window so far, so its state is its own; a state
    repeated from another copy would take a part of the augmentation away. Between updates the states are kept by cell,
    whatever passes the cells ran in: the next update may run under another plan.

    What a pass writes counts from `commit` on. An update that is thrown away (a gradient that isn't finite, a plan that
    ran out of memory and begins again) leaves every state as it was.

    In an update that forks inside the model a state is a copy's all the same: those of layers below the fork, which all
    copies share, are kept once for each. They are read before the fork and written after it, as `seqba.fork` and
    `seqba.per_copy` repeat them.

    Outside an update (validation, a plain loop) there is one further state, apart from the cells'.
    """

    def __init__(self) -> None:
        self._kept: dict[Cell, tuple[Tensor, ...]] = {}
        self._written: dict[Cell, tuple[Tensor, ...]] = {}
        self._latest: set[Cell] = set()  # what the latest update wrote: on a rank, its own cells
        self._outside: tuple[Tensor, ...] | None = None

    def read(self) -> tuple[Tensor, ...] | None:
        """The states of the copies in the current pass, stacked copy-major: each tensor (k·B, ...).

        Returns:
            The tensors that were written for these cells, or None if nothing was.

        Raises:
            ValueError: if some of the pass's cells have a state and others have none.
        """
        noise = current_noise()
        if noise is None:
            return self._outside
        states = [self._kept.get((noise.micro_batch, copy)) for copy in noise.pass_copies]
        there = [state for state in states if state is not None]
        if not there:
            return None
        if len(there) < len(states):
            raise ValueError(
                f"micro-batch {noise.micro_batch}: only {len(there)} of copies {list(noise.pass_copies)} have a state"
            )
        return tuple(torch.cat(parts) for parts in zip(*there, strict=True)) if len(there) > 1 else there[0]

    def write(self, state: Sequence[Tensor]) -> None:
        """Takes the states that the current pass ends with, (k·B, ...) each, copy-major; keeps no graph."""
        noise = current_noise()
        detached = tuple(tensor.detach() for tensor in state)
        if noise is None:
            self._outside = detached
            return
        copies = len(noise.pass_copies)
        slices = [tensor.chunk(copies) for tensor in detached]
        for place, copy in enumerate(noise.pass_copies):
            # A slice of a stacked pass would keep the whole of it alive.
            self._written[noise.micro_batch, copy] = tuple(parts[place].clone() for parts in slices)

    def forget(self) -> None:
        """Drops the states of the current pass's copies, or the one outside an update: their text begins here."""
        noise = current_noise()
        if noise is None:
            self._outside = None
            return
        for copy in noise.pass_copies:
            self._kept.pop((noise.micro_batch, copy), None)

    def commit(self) -> None:
        """Makes what the update's passes wrote the states of the next update."""
        self._kept.update(self._written)
        self._latest = set(self._written)
        self._written.clear()

    def discard(self) -> None:
        """Forgets what the update's passes wrote."""
        self._written.clear()

    def state_dict(self, ranks: Group = ALONE) -> dict[str, Any]:
        """{"shards": for each micro-batch, in order, its tensors (M·B, ...), copy-major}: the same for every plan.

        Where micro-batches aren't numbered from 0 (a process under DistributedDataParallel), "numbers" has their
        numbers.

        Args:
            ranks: the processes that have the cells between them; all must call it, and each gets all states, on the
                CPU.
        """
        kept = self._kept
        if ranks is not ALONE:
            own = {cell: tuple(part.cpu() for part in kept[cell]) for cell in self._latest if cell in kept}
            kept = {cell: state for each in ranks.gather(own) for cell, state in each.items()}
        micro_batches = sorted({micro_batch for micro_batch, _ in kept})
        of_micro_batches = [
            [kept[cell] for cell in sorted(kept) if cell[0] == micro_batch] for micro_batch in micro_batches
        ]
        state = {"shards": [[torch.cat(parts) for parts in zip(*states, strict=True)] for states in of_micro_batches]}
        return state if micro_batches == list(range(len(micro_batches))) else {**state, "numbers": micro_batches}

    def load_state_dict(self, state: Mapping[str, Any], *, copies: int, device: torch.device) -> None:
        """Goes on from `state_dict`, whose rows are those of `copies` copies, on the device of the model.

        Raises:
            ValueError: if the rows can't be those of so many copies.
        """
        self._kept.clear()
        self._written.clear()
        self._latest.clear()
        numbers = state.get("numbers", range(len(state["shards"])))
        for micro_batch, tensors in zip(numbers, state["shards"], strict=True):
            if not all(
                tensor.is_floating_point() and tensor.dim() and tensor.shape[0] % copies == 0 for tensor in tensors
            ):
                raise ValueError(f"the carried state of micro-batch {micro_batch} isn't that of {copies} copies")
            for copy, parts in enumerate(zip(*(tensor.chunk(copies) for tensor in tensors), strict=True)):
                self._kept[micro_batch, copy] = tuple(part.to(device, copy=True) for part in parts)
        self._latest = set(self._kept)
