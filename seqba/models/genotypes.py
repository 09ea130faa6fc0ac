"""Genotypes of searched networks, as data: DARTS, AmoebaNet-A and NASNet-A."""

from __future__ import annotations

from dataclasses import dataclass

Edge = tuple[str, int]
"""An operation of `seqba.models.cell_operations.OPERATIONS`, and the number of the state that it reads."""


@dataclass(frozen=True)
class CellPlan:
    """Plan of a cell's operations.

    States 0 and 1 are the outputs of the cell before the last and of the last one, brought to the cell's width. Each
    node adds the results of two edges, and is the next state.

    Attributes:
        nodes: the two edges of states 2, 3, …; an edge reads a state before its own.
        output: the states whose channels, one after the other, are the cell's output.
    """

    nodes: tuple[tuple[Edge, Edge], ...]
    output: tuple[int, ...]


@dataclass(frozen=True)
class Genotype:
    """Both kinds of cells of a network.

    Attributes:
        normal: at one resolution.
        reduction: halves the resolution: its edges from states 0 and 1 have stride 2.
    """

    normal: CellPlan
    reduction: CellPlan


GENOTYPES: dict[str, Genotype] = {
    "darts": Genotype(
        normal=CellPlan(
            nodes=(
                (("sep3", 0), ("sep3", 1)),
                (("sep3", 0), ("sep3", 1)),
                (("sep3", 1), ("skip", 0)),
                (("skip", 0), ("dil3", 2)),
            ),
            output=(2, 3, 4, 5),
        ),
        reduction=CellPlan(
            nodes=(
                (("max", 0), ("max", 1)),
                (("skip", 2), ("max", 1)),
                (("max", 0), ("skip", 2)),
                (("skip", 2), ("max", 1)),
            ),
            output=(2, 3, 4, 5),
        ),
    ),
    "darts_v1": Genotype(
        normal=CellPlan(
            nodes=(
                (("sep3", 1), ("sep3", 0)),
                (("skip", 0), ("sep3", 1)),
                (("skip", 0), ("sep3", 1)),
                (("sep3", 0), ("skip", 2)),
            ),
            output=(2, 3, 4, 5),
        ),
        reduction=CellPlan(
            nodes=(
                (("max", 0), ("max", 1)),
                (("skip", 2), ("max", 0)),
                (("max", 0), ("skip", 2)),
                (("skip", 2), ("avg", 0)),
            ),
            output=(2, 3, 4, 5),
        ),
    ),
    "amoebanet": Genotype(
        normal=CellPlan(
            nodes=(
                (("avg", 0), ("max", 1)),
                (("sep3", 0), ("sep5", 2)),
                (("sep3", 0), ("avg", 3)),
                (("sep3", 1), ("skip", 1)),
                (("skip", 0), ("avg", 1)),
            ),
            output=(4, 5, 6),
        ),
        reduction=CellPlan(
            nodes=(
                (("avg", 0), ("sep3", 1)),
                (("max", 0), ("sep7", 2)),
                (("sep7", 0), ("avg", 1)),
                (("max", 0), ("max", 1)),
                (("c7x1", 0), ("sep3", 5)),
            ),
            output=(3, 4, 6),
        ),
    ),
    "nasnet_a": Genotype(
        normal=CellPlan(
            nodes=(
                (("sep5", 1), ("sep3", 0)),
                (("sep5", 0), ("sep3", 0)),
                (("avg", 1), ("skip", 0)),
                (("avg", 0), ("avg", 0)),
                (("sep3", 1), ("skip", 1)),
            ),
            output=(2, 3, 4, 5, 6),
        ),
        reduction=CellPlan(
            nodes=(
                (("sep5", 1), ("sep7", 0)),
                (("max", 1), ("sep7", 0)),
                (("avg", 1), ("sep5", 0)),
                (("skip", 3), ("avg", 2)),
                (("sep3", 2), ("max", 1)),
            ),
            output=(4, 5, 6),
        ),
    ),
}
"""Liu et al. 2019 (second order, and first order as `darts_v1`), Real et al. 2019 and Zoph et al. 2018: the cells of
DARTS's released code, which is where Hoffer et al. 2020 have theirs from."""
