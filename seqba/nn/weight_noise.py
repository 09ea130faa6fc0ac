"""Noise that lives in weight space, drawn per copy: DropConnect on a matrix, dropout of whole word types."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from seqba.noise.context import current_noise
from seqba.random.masks import kept_scale


class WeightDropout(nn.Module):
    """DropConnect: zeroes elements of a weight matrix with probability `p` and scales the rest, W·mask / (1 − p).

    One mask holds for all rows and all time steps of a copy. Inside an update each copy of a micro-batch draws its own,
    keyed by (seed, update, micro-batch, copy, site), also when copies are stacked in one pass; with `shared` one mask
    serves all copies, which is what repeating rows comes to. Outside an update a mask is drawn for each forward, from
    the global generator.

    Args:
        p: probability of dropping, in [0, 1).
        shared: whether the copies of a micro-batch share the mask.

    Raises:
        ValueError: if p isn't in [0, 1).

    Source: Wan et al. 2013; on the recurrent weights of an LSTM, Merity et al. 2018, section 2.
    """

    def __init__(self, p: float, *, shared: bool = False) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"weight dropout probability is {p}; it must be in [0, 1)")
        self.p = p
        self.shared = shared

    def forward(self, weight: Tensor) -> Tensor | None:
        """Masks for `weight` (O, I): int8 (k, O, I) for the k copies of the pass, (1, O, I) for all rows, or None."""
        if not self.training or self.p == 0:
            return None
        return _masks_per_copy(self, weight.shape, self.p, weight.device, shared=self.shared)

    def extra_repr(self) -> str:
        """`p=0.5, shared=False`."""
        return f"p={self.p}, shared={self.shared}"


class WordDropout(nn.Module):
    """Drops whole word types: every occurrence of a dropped word is a zero embedding, in a row and over time.

        E[v] · mask_v / (1 − p),   one Bernoulli draw for each word v of the vocabulary and copy

    Randomness: as in `WeightDropout`, with one mask of V words per copy.

    Args:
        p: probability of dropping, in [0, 1).
        vocabulary: V.
        shared: whether the copies of a micro-batch share the mask.

    Raises:
        ValueError: if p isn't in [0, 1).

    Source: Gal & Ghahramani 2016; as in AWD-LSTM's released code (`embedded_dropout`).
    """

    def __init__(self, p: float, vocabulary: int, *, shared: bool = False) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"word dropout probability is {p}; it must be in [0, 1)")
        self.p = p
        self.vocabulary = vocabulary
        self.shared = shared

    def forward(self, embedded: Tensor, tokens: Tensor) -> Tensor:
        """Drops words from `embedded` (k·B, T, D), the embeddings of `tokens` (k·B, T) int64."""
        if not self.training or self.p == 0:
            return embedded
        kept = _masks_per_copy(self, (self.vocabulary,), self.p, tokens.device, shared=self.shared)  # (k or 1, V)
        copies = kept.shape[0]
        offsets = torch.arange(copies, device=tokens.device).view(copies, 1, 1) * self.vocabulary
        places = tokens.reshape(copies, -1, tokens.shape[1]) + offsets  # (k, B, T)
        factors = kept.view(-1)[places].view(*tokens.shape, 1).to(embedded.dtype)
        return embedded * (factors * kept_scale(self.p))

    def extra_repr(self) -> str:
        """`p=0.1, vocabulary=10000, shared=False`."""
        return f"p={self.p}, vocabulary={self.vocabulary}, shared={self.shared}"


def _masks_per_copy(
    owner: nn.Module, shape: tuple[int, ...], p: float, device: torch.device, *, shared: bool
) -> Tensor:
    """int8 masks (k, *shape) of the pass's copies; (1, *shape) where they share it or outside an update."""
    noise = current_noise()
    if noise is None:
        return (torch.rand(1, *shape, device=device) >= p).to(torch.int8)
    copies = 1 if shared else len(noise.copies)
    rows = noise.keep_mask(owner, (copies * shape[0], *shape[1:]), p, device, shared=shared)
    return rows.view(copies, *shape)
