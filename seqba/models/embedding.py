"""The Transformer's embedding: tokens and their places in their rows."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from seqba.models.sizes import EmbeddingSizes, Sinusoids
from seqba.models.unpadding import CopyRows
from seqba.nn import Dropout


class Embedding(nn.Module):
    """Token embedding · √D + position, then dropout.

    Token n of a row, from 0, stands at t = `first_position` + n; `sinusoids` has the formula of its position.

    Args:
        sizes: with what may be chosen: learned positions, no √D, layer normalisation before the dropout.
        vocabulary: V.
        pad: id of padding; its embedding begins at zero, and has no gradient here.

    Source: Vaswani et al. 2017, sections 3.4 and 3.5; what may be chosen as in fairseq and Marian.
    """

    positions: Tensor

    def __init__(self, sizes: EmbeddingSizes, vocabulary: int, *, pad: int) -> None:
        super().__init__()
        dim = sizes.embed_dim
        self.tokens = nn.Embedding(vocabulary, dim, padding_idx=pad)
        nn.init.normal_(self.tokens.weight, std=dim**-0.5)
        with torch.no_grad():
            self.tokens.weight[pad].zero_()
        if sizes.learned_positions:
            self.positions = nn.Parameter(torch.empty(sizes.max_positions, dim))
            nn.init.normal_(self.positions, std=dim**-0.5)
        else:
            table = sinusoids(sizes.max_positions, dim, sizes.first_position, sizes.sinusoids)
            self.register_buffer("positions", table, persistent=False)
        self.norm = nn.LayerNorm(dim) if sizes.normalised else nn.Identity()
        self.dropout = Dropout(sizes.dropout)
        self.scale = math.sqrt(dim) if sizes.scaled else 1.0

    def forward(self, tokens: Tensor, positions: Tensor, copy_rows: CopyRows = None) -> Tensor:
        """Tokens (N,) int64, their places in their rows (N,) int64, from 0 → (N, D)."""
        sums = self.norm(self.tokens(tokens) * self.scale + self.positions[positions])
        embedded: Tensor = self.dropout(sums, copy_rows)
        return embedded


def sinusoids(length: int, embed_dim: int, first: int, rates: Sinusoids = "tensor2tensor") -> Tensor:
    """The table of positions t = first, first + 1, …: (length, D) float32.

        P[t, i] = sin(t · r_i) for i < D/2, and the cosines after them
        r_i     = 10000^(−i/(D/2−1)) in tensor2tensor, 10000^(−2i/D) in the paper

    Source: Vaswani et al. 2017, section 3.5, with sines and cosines in halves; tensor2tensor and fairseq have the
    former rates, the paper and Marian the latter.
    """
    if torch.get_default_device().type == "meta":  # an outline has no values; torch would import its compiler for them
        return torch.empty(length, embed_dim)
    if rates == "paper":
        angles = torch.arange(first, first + length).double().unsqueeze(1) * 10000.0 ** -(
            torch.arange(0, embed_dim, 2).double() / embed_dim
        )
        return torch.cat([angles.sin(), angles[:, : embed_dim // 2].cos()], dim=1).float()
    half = embed_dim // 2
    powers = torch.exp(torch.arange(half) * -(math.log(10000.0) / max(half - 1, 1)))
    angles = torch.arange(first, first + length).unsqueeze(1) * powers
    table = torch.cat([angles.sin(), angles.cos()], dim=1)
    return nn.functional.pad(table, (0, embed_dim - 2 * half))
