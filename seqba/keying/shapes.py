"""Where the copies of a pass lie in a draw of torch's: told by its shape."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from seqba.keying.owner import is_time_first
from seqba.modules.wrappers import in_words
from seqba.noise.noise import Noise
from seqba.noise.placed import PlacedDraw


@dataclass(frozen=True)
class DrawShape:
    """Shape of a keyed draw.

    Attributes:
        module: name of the module whose draw it is; "" for the model itself, or for code outside of it.
        shape: of the draw.
        of_rows: whether it belongs to a tensor that was computed from the rows.
        is_said: whether the module says on which dimension its rows are.
        copies: whose rows there are at this point of the pass; one stands for all below a fork.
    """

    module: str
    shape: tuple[int, ...]
    of_rows: bool
    is_said: bool
    copies: int


_watched: list[DrawShape] | None = None


@contextmanager
def watching_shapes() -> Iterator[list[DrawShape]]:
    """Inside, the shapes of keyed draws are added to the list, in their order."""
    global _watched
    before, _watched = _watched, []
    try:
        yield _watched
    finally:
        _watched = before


def copies_dimension(
    noise: Noise,
    owner: object,
    shape: Sequence[int],
    *,
    of_rows: bool,
    is_rows_first: bool = False,
    is_of_a_weight: bool = False,
) -> int | None:
    """The dimension of a draw along which the copies of the pass lie one after the other, or None if they share it.

    Args:
        noise: of the pass; its `rows`, where they are known, decide.
        owner: the module whose draw it is (`find_owner`).
        shape: of the draw.
        of_rows: whether the draw belongs to a tensor that was computed from the rows (dropout's input), rather than
            being made by its shape alone (`torch.rand`).
        is_rows_first: whether it is known to have its rows on dimension 0 (attention's weights).
        is_of_a_weight: whether it is noise of a parameter itself, which is warned of where copies are stacked.

    Returns:
        0 where dimension 0 is a multiple of the rows (heads may be folded into it); 1 where that one is the rows (time
        first); else 0 for what was computed from the rows, whose dimension 0 may be the tokens of all of them. Where
        both would fit, 1 in a layer that says `batch_first=False`, else 0. None for what has no dimension or a single
        row for all: a layer that is dropped by one number, a mask of positions.

    What is decided is noted in `noise.placed`, where `seqba.noise.telling` sees shapes that don't tell.
    """
    dimension = _dimension(noise, shape, of_rows=of_rows, is_rows_first=is_rows_first)
    module = noise.names.get(id(owner), "")
    if _watched is not None:
        is_said = is_rows_first or is_time_first(noise.names)
        _watched.append(DrawShape(module, tuple(shape), of_rows, is_said, len(noise.copies)))
    if noise.rows and shape and not noise.calls.is_recomputing:
        copies = len(noise.copies)
        noise.placed.append(
            PlacedDraw(module, tuple(shape), of_rows, noise.rows, copies, dimension, is_of_a_weight=is_of_a_weight)
        )
    return dimension


def check_divisible(noise: Noise, owner: object, shape: Sequence[int]) -> None:
    """Refuses a draw whose dimension 0 is to hold the copies of the pass one after the other, and can't.

    Raises:
        ValueError: with the name of the module.
    """
    if shape[0] % len(noise.copies):
        module = in_words(noise.names.get(id(owner), ""))
        raise ValueError(
            f"{module} draws noise of shape {tuple(shape)} in a pass of {len(noise.copies)} copies, whose rows can't "
            "be told in it: it is a table's that all rows share, or of rows that were chosen by their values (tokens "
            'of an expert, say); take plan="looped", which is right for any shape'
        )


def _dimension(noise: Noise, shape: Sequence[int], *, of_rows: bool, is_rows_first: bool) -> int | None:
    rows = noise.rows
    if not shape:
        return None
    if not rows:  # unknown, or none at all
        return 0 if of_rows or shape[0] % len(noise.copies) == 0 else None
    second = len(shape) > 1 and shape[1] == rows and not is_rows_first
    if shape[0] % rows == 0:
        return 1 if second and of_rows and is_time_first(noise.names) else 0
    if second:
        return 1
    return 0 if of_rows and shape[0] != 1 else None
