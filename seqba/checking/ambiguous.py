"""Draws whose shape doesn't tell the rows of copies from what all rows share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from seqba.keying.shapes import DrawShape


@dataclass(frozen=True)
class AmbiguousDraw:
    """Noise whose copies `seqba.keyed` finds by the sizes of the batch.

    Attributes:
        module: name of the module whose code draws it; "" for the model itself, or for code outside of it.
        shape: of the draw, in a pass of one copy.
        is_time_first: whether its rows are on dimension 1; otherwise it is shared by all rows.
        is_table: whether it is for a tensor that has no rows (a table of positions), in any batch.
    """

    module: str
    shape: tuple[int, ...]
    is_time_first: bool
    is_table: bool = False


def find_ambiguous(
    of_looped: Sequence[DrawShape], of_stacked: Sequence[DrawShape], *, rows: int, copies: int
) -> tuple[AmbiguousDraw, ...]:
    """Draws that another batch of about this size may have taken otherwise.

    What grows with the copies of a pass is of rows: a size that stays, and is no smaller than the rows, is a multiple
    of them in some batch.

    Args:
        of_looped: draws of passes of one copy each.
        of_stacked: draws of one pass of all copies.
        rows: B, of the batch.
        copies: M.
    """
    of_one = of_looped[: len(of_looped) // copies]
    found: dict[AmbiguousDraw, None] = {}
    for one, stacked in zip(of_one, of_stacked, strict=False):
        if (one.module, len(one.shape)) != (stacked.module, len(stacked.shape)):
            break  # the passes don't draw alike, which their gradients tell
        if not one.shape or one.shape[0] != stacked.shape[0]:
            continue
        grows = one.shape != stacked.shape
        if grows and one.of_rows and not one.is_said and one.shape[0] >= rows * copies:
            found[AmbiguousDraw(one.module, one.shape, is_time_first=True)] = None
        elif not grows and one.of_rows and one.shape[0] > 1 and stacked.copies > 1:
            found[AmbiguousDraw(one.module, one.shape, is_time_first=False, is_table=True)] = None
        elif not grows and not one.of_rows and one.shape[0] >= max(rows, 2):
            found[AmbiguousDraw(one.module, one.shape, is_time_first=False)] = None
    return tuple(found)
