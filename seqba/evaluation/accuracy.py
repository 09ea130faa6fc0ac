"""A classifier on a split of pictures: how many are right, seen once from the middle or averaged over noisy views."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from seqba.core import Noise, noise_context
from seqba.data.images import ImageBatch, ImageBatches
from seqba.nn import count_right


class View(Protocol):
    """Pictures (R, 3, H, W) uint8 and their sizes (R, 2) → what the model sees, (R, 3, side, side) float32."""

    def __call__(self, images: Tensor, sizes: Tensor, /) -> Tensor:
        """The view of each row."""
        ...


@dataclass(frozen=True)
class ScoredImages:
    """The classes of a batch.

    Attributes:
        labels: (B,) int64.
        log_probabilities: (B, classes), float32. Logarithms, since a probability may be too small for a number.
    """

    labels: Tensor
    log_probabilities: Tensor

    @property
    def probabilities(self) -> Tensor:
        """(B, classes), float32."""
        return self.log_probabilities.exp()


@dataclass
class ImageTally:
    """Sums over the images so far."""

    images: int = 0
    top1: int = 0
    top5: int = 0
    nll: float = 0.0

    def add(self, scored: ScoredImages) -> None:
        """Adds a batch."""
        right = count_right(scored.log_probabilities, scored.labels)
        self.images += len(scored.labels)
        self.top1 += int(right["top1"])
        self.top5 += int(right["top5"])
        own = scored.log_probabilities.gather(1, scored.labels[:, None])
        self.nll -= float(own.double().sum())

    def percent(self, right: int) -> float:
        """Percent of the images."""
        return 100 * right / self.images


def score_once(model: nn.Module, batches: ImageBatches, view: View, device: torch.device) -> Iterator[ScoredImages]:
    """Scores every picture in one view that isn't random.

    Args:
        model: (R, 3, side, side) → logits (R, classes), in evaluation mode.
        batches: the split.
        view: what the model sees.
        device: of the model.
    """
    for number in range(len(batches)):
        batch = batches[number]
        yield ScoredImages(batch.labels, _log_probabilities(model, batch, view, device).cpu())


def score_views(
    model: nn.Module, batches: ImageBatches, view: View, device: torch.device, *, views: int, seed: int
) -> Iterator[ScoredImages]:
    """Scores every picture in several random views: the mean of their probabilities (test-time augmentation).

        p(y | x) = 1/K · Σ_i softmax(model(T_i(x)))

    Args:
        model: as in `score_once`.
        batches: the split.
        view: a random view, the one of training.
        device: of the model.
        views: K.
        seed: of the views.

    Raises:
        ValueError: if `views` < 1.

    Randomness: a picture's view i is keyed by (seed, 0, number of the batch, i), so that the same batches give the same
    figures, and the first views are the same for every K.

    Source: Hoffer et al. 2020, table 4; there logits were averaged in the released code.
    """
    for number in range(len(batches)):
        batch = batches[number]
        total: Tensor | None = None
        for copy in range(views):
            with noise_context(Noise(seed, 0, number, (copy,))):
                scores = _log_probabilities(model, batch, view, device)
            total = scores if total is None else torch.logaddexp(total, scores)
        if total is None:
            raise ValueError(f"views is {views}; it must be at least 1")
        yield ScoredImages(batch.labels, (total - math.log(views)).cpu())


def _log_probabilities(model: nn.Module, batch: ImageBatch, view: View, device: torch.device) -> Tensor:
    with torch.no_grad():
        images = view(batch.images.to(device), batch.sizes.to(device))
        logits: Tensor = model(images.to(next(model.parameters()).dtype))
        return logits.float().log_softmax(dim=1)
