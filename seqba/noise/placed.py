"""Where the copies of a pass were found in a draw of torch's (see `seqba.keying.shapes`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn
from torch.utils.weak import WeakIdKeyDictionary

from seqba.modules.wrappers import in_words

if TYPE_CHECKING:
    from seqba.noise.noise import Noise

_Site = tuple[str, int]  # name of a module, and which of its draws in a pass
_BatchKey = tuple[int, int, int]  # seed, update, micro-batch
_Draws = dict[_Site, tuple["PlacedDraw", _BatchKey]]  # of the last pass that had them

# By identity: a model may define what it is equal to.
_placed: MutableMapping[nn.Module, _Draws] = WeakIdKeyDictionary()


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
        is_of_a_weight: whether it is noise of a parameter, of which there is one for all copies of a pass.
    """

    module: str
    shape: tuple[int, ...]
    of_rows: bool
    rows: int
    copies: int
    dimension: int | None
    is_of_a_weight: bool = False

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


def find_misplaced(model: nn.Module, noise: Noise) -> str | None:
    """Finds a draw that would be another one in a looped pass, or that was placed otherwise in a pass before.

    Args:
        model: that was computed.
        noise: of the pass, which has ended.

    Returns:
        What there is to say of the draw; None where there is none.
    """
    before = _placed.setdefault(model, {})
    batch = (noise.seed, noise.update, noise.micro_batch)
    numbers: Counter[str] = Counter()
    for draw in noise.placed:
        site = draw.module, numbers[draw.module]
        numbers[draw.module] += 1
        name = in_words(draw.module)
        if draw.is_of_a_weight and draw.copies > 1 and draw.dimension is not None:
            return (
                f"{name} draws a tensor of shape {draw.shape} for a weight, which all copies of a pass have in common: "
                "stacked copies share its noise, and looped ones have each their own; take seqba.nn.WeightDropout or "
                'WeightDroppedLSTM, or plan="looped"'
            )
        if draw.is_of_rows_when_looped:
            return (
                f"{name} draws a tensor of shape {draw.shape} for all rows, which looped passes, of "
                f"{draw.rows // draw.copies} rows, take for numbers of theirs: so the stacked plan draws other "
                "noise than the looped one; name one plan, or draw it in a shape whose dimension 0 is no multiple of "
                "the rows"
            )
        earlier, of_batch = before.get(site, (draw, batch))
        if draw.contradicts(earlier, same_batch=of_batch == batch and not noise.copies_differ):
            return (
                f"{name} draws a tensor of shape {earlier.shape} in a pass of {earlier.rows} rows and of shape "
                f"{draw.shape} in one of {draw.rows}, and these shapes don't tell the rows of the copies from other "
                "sizes: so copies draw otherwise from batch to batch, and in the stacked plan than in the looped one; "
                "seqba.check(model, batch, loss_fn) says what helps"
            )
        before[site] = draw, batch
    return None
