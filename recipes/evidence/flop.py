"""Floating-point operations of a run, by formula: 2 for each product with a weight, and the backward costs twice.

What is counted are the matrix products and convolutions; norms, activations, dropout, the optimizer and validation are
left out. The figures compare arms with each other, so that what all have in common needn't be exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

FORWARD_AND_BACKWARD = 3
OF_A_PRODUCT = 2


class Cost(Protocol):
    """Costs of one processed unit, a target token or a picture, in an update."""

    def below_fork(self, symbols: int) -> float:
        """Operations below the encoder's fork; 0 for models without one."""
        ...

    def whole(self, symbols: int) -> float:
        """Operations in all, for a dictionary of so many symbols."""
        ...


@dataclass(frozen=True)
class AWDLSTM:
    """An AWD-LSTM whose output embedding is that of the input; per token.

    Attributes:
        layers: how many.
        embedding: width of the embedding, and of the last layer.
        hidden: width of the others.
    """

    layers: int
    embedding: int
    hidden: int

    def below_fork(self, symbols: int) -> float:
        """Nothing is shared by copies here."""
        return 0.0

    def whole(self, symbols: int) -> float:
        """4·H·(I + H) of each layer, and the output's V·D."""
        widths = [self.embedding, *[self.hidden] * (self.layers - 1), self.embedding]
        layers = sum(4 * out * (into + out) for into, out in pairwise(widths))
        return FORWARD_AND_BACKWARD * OF_A_PRODUCT * (layers + symbols * self.embedding)


@dataclass(frozen=True)
class Transformer:
    """An encoder and a decoder of the same sizes; per target token, for sources as long as targets.

    Attributes:
        layers: of each side.
        width: D.
        inner: width of the feed-forward layers.
        length: mean tokens of a sentence, for the products between positions.
    """

    layers: int
    width: int
    inner: int
    length: int

    def below_fork(self, symbols: int) -> float:
        """The encoder, and the keys and values that the decoder makes of its output."""
        width, across = self.width, 2 * self.length * self.width
        encoder = 4 * width**2 + 2 * width * self.inner + across
        return FORWARD_AND_BACKWARD * OF_A_PRODUCT * self.layers * (encoder + 2 * width**2)

    def whole(self, symbols: int) -> float:
        """The same, the decoder, and the output's V·D."""
        width, across = self.width, 2 * self.length * self.width
        decoder = 6 * width**2 + 2 * width * self.inner + 1.5 * across  # its own positions: half of them on average
        above = FORWARD_AND_BACKWARD * OF_A_PRODUCT * (self.layers * decoder + symbols * width)
        return self.below_fork(symbols) + above


@dataclass(frozen=True)
class ResNet:
    """He et al.'s network for pictures of 32×32; per picture.

    Attributes:
        depth: 6n + 2.
    """

    depth: int

    def below_fork(self, symbols: int) -> float:
        """Nothing is shared by copies here."""
        return 0.0

    def whole(self, symbols: int) -> float:
        """Convolutions of 3×3, shortcuts of 1×1 where the width changes, and the last layer."""
        blocks, products, width = (self.depth - 2) // 6, 9 * 3 * 16 * 32**2, 16
        for out, side in ((16, 32), (32, 16), (64, 8)):
            products += (9 * out * (width + out) + (width * out if width != out else 0)) * side**2
            products += (blocks - 1) * 18 * out * out * side**2
            width = out
        return FORWARD_AND_BACKWARD * OF_A_PRODUCT * (products + 64 * symbols)


@dataclass(frozen=True)
class Counted:
    """A network whose multiply-adds were counted by running it; per picture.

    Attributes:
        products: multiply-adds of a forward in training.
    """

    products: float

    def below_fork(self, symbols: int) -> float:
        """Nothing is shared by copies here."""
        return 0.0

    def whole(self, symbols: int) -> float:
        """2 for each multiply-add."""
        return FORWARD_AND_BACKWARD * OF_A_PRODUCT * self.products
