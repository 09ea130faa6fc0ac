"""Places of the tokens in a padded grid, found without waiting for a GPU."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from seqba.nn.kernels.recurring import recurring_rows


class TokenCounts(NamedTuple):
    """How many tokens of a pass aren't padding; None where the host doesn't know.

    Attributes:
        source: of the source, or of the only text.
        target: of the target.
    """

    source: int | None = None
    target: int | None = None

    def times(self, copies: int) -> TokenCounts:
        """Those of so many copies of the rows."""
        return TokenCounts(*(None if count is None else count * copies for count in self))


UNKNOWN = TokenCounts()


def places_of(mask: Tensor, count: int | None = None) -> Tensor:
    """Flat positions of what is True in a mask, in row-major order: (count,) int64.

    How many there are is data, so that `nonzero` makes the host wait for a GPU and a GPU for the host. Where the number
    is known on the host the positions are found by searching the running count.

    Args:
        mask: bool, any shape.
        count: how many are True; None where the host doesn't know.
    """
    flat = mask.flatten()
    if count is None or mask.device.type == "cpu":
        return flat.nonzero().squeeze(1)
    if count == flat.numel():
        return torch.arange(count, device=mask.device)
    return torch.searchsorted(flat.cumsum(0), torch.arange(1, count + 1, device=mask.device))


def with_spare_places(mask: Tensor, copies: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Places of the tokens, and behind those of each copy some of its padding: up to `recurring_rows` in all.

    Padding is taken from rows that have a token, in which attention has something to see.

    Args:
        mask: (k·B, T) bool, True where a token is; rows padded on the right, copy-major.
        copies: k.
        dtype: of products of the rows.

    Returns:
        Flat positions in the grid, (N,) int64; and which of these N are tokens, (N',) int64, in row-major order.
    """
    places: list[Tensor] = []
    tokens: list[Tensor] = []
    rows = 0
    for copy, part in enumerate(mask.chunk(copies)):
        own = part.flatten().nonzero().squeeze(1)
        missing = recurring_rows(len(own), dtype, mask.device) - len(own)
        spare = (~part & part[:, :1]).flatten().nonzero().squeeze(1)[:missing]
        places += [own + copy * part.numel(), spare + copy * part.numel()]
        tokens.append(torch.arange(rows, rows + len(own)))
        rows += len(own) + len(spare)
    return torch.cat(places), torch.cat(tokens)


def without_padding(tokens: Tensor, pad: int, count: int | None = None) -> Tensor:
    """The tokens that aren't padding, in row-major order: (B, T) int64 → (N,); `count` is N where the host knows."""
    flat = tokens.flatten()
    return flat if count == flat.numel() else flat.index_select(0, places_of(tokens != pad, count))
