"""Output of a classifier that a second head helps to train."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class AuxiliaryLogits(NamedTuple):
    """Logits of both heads of a classifier in training; in evaluation such a classifier gives the first alone.

        loss = cross-entropy(logits) + weight · cross-entropy(auxiliary)

    Attributes:
        logits: (R, classes), of the network's end.
        auxiliary: (R, classes), of a head in its middle.
        weight: what the loss of the auxiliary head is multiplied by.

    Source: Szegedy et al. 2015, section 5.
    """

    logits: Tensor
    auxiliary: Tensor
    weight: float
