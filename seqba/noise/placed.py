"""Where the copies of a pass were found in a draw of torch's (see `seqba.keying.shapes`)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PlacedDraw:
    """A keyed draw of a pass.

    Attributes:
        module: name of the module whose draw it is; "" for the model itself, or for code outside of it.
        shape: of the draw, of one dimension at least.
        of_rows: whether it belongs to a tensor that was computed from the rows.
        rows: of all copies, at this point of the pass.
        copies: whose rows they are.
        dimension: along which the copies were found; None for a draw that they share.
    """

    module: str
    shape: tuple[int, ...]
    of_rows: bool
    rows: int
    copies: int
    dimension: int | None

    @property
    def is_of_rows_when_looped(self) -> bool:
        """Whether copies share it, but one alone in its pass would take it for numbers of its rows."""
        return self.copies > 1 and self.dimension is None and self.shape[0] % (self.rows // self.copies) == 0

    def contradicts(self, other: PlacedDraw, *, same_batch: bool) -> bool:
        """Whether the copies can't have been found rightly in both, if both are of one site.

        Args:
            other: the draw of the site in another pass.
            same_batch: whether both passes are of the same examples: what is of rows then grows with them.
        """
        if (self.of_rows, len(self.shape)) != (other.of_rows, len(other.shape)):
            return False  # a module that doesn't draw the same in each pass
        if self.dimension is None or other.dimension is None:
            return self.dimension != other.dimension
        if self.dimension != other.dimension:
            return self.copies > 1 and other.copies > 1  # a copy by itself draws the same along either
        return same_batch and self.shape == other.shape and self.rows != other.rows
