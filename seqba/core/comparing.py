"""Copies that are compared and run on several processes: which these are, and what the processes tell each other."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from seqba.group import Group
from seqba.noise.compare import Comparison


def divided_micro_batches(group: Group, micro_batches: int, copies: int) -> list[int]:
    """Numbers of the micro-batches whose copies aren't all on one process."""
    dealt = [cell for rank in range(group.size) for cell in group.cells(micro_batches, copies, rank)]
    return sorted({number for number, own in dealt if 0 < len(own) < copies})


def exchange_rows(comparisons: Sequence[Comparison], group: Group, device: torch.device) -> None:
    """Gives every process the rows that any of them has shown: one message of shapes, and one sum over the group.

    Args:
        comparisons: of the divided micro-batches, in the same order on every process, copies there or not.
        group: the processes.
        device: of the model.
    """
    told = group.gather([each.described() for each in comparisons])
    sums: list[Tensor] = []
    for number, comparison in enumerate(comparisons):
        described = {call: form for each in told for call, form in each[number].items()}
        sums += comparison.seen(described, device)
    group.add_up(sums)
