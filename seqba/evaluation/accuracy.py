"""Accuracy of a classifier on a split of pictures, seen once from the centre or averaged over noisy views."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from seqba.data.images import ImageBatch, ImageBatches
from seqba.evaluation.options import AVERAGES
from seqba.nn.accuracy import count_right
from seqba.noise.context import noise_context
from seqba.noise.noise import Noise


class ImageView(Protocol):
    """View of pictures: (R, 3, H, W) uint8 and their sizes (R, 2) → the model's input (R, 3, side, side) float32."""

    def __call__(self, images: Tensor, sizes: Tensor, /) -> Tensor:
        """The view of each row."""
        ...


@dataclass(frozen=True)
class ScoredImages:
    """Labels and predictions of a batch.

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


def score_once(
    model: nn.Module, batches: ImageBatches, view: ImageView, device: torch.device
) -> Iterator[ScoredImages]:
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
    model: nn.Module,
    batches: ImageBatches,
    view: ImageView,
    device: torch.device,
    *,
    views: int,
    seed: int,
    average: str = "probabilities",
) -> Iterator[ScoredImages]:
    """Scores every picture in several random views: test-time augmentation.

        p(y | x) = 1/K · Σ_i softmax(model(T_i(x)))        the mean of their probabilities, or
        p(y | x) = softmax(1/K · Σ_i model(T_i(x)))        of their logits

    Args:
        model: as in `score_once`.
        batches: the split.
        view: a random view, the one of training.
        device: of the model.
        views: K.
        seed: of the views.
        average: one of `AVERAGES`.

    Raises:
        ValueError: if `views` < 1, or for another `average`.

    Randomness: a picture's view i is keyed by (seed, i, 0, place of the picture in the split), whatever batch it is in,
    and the first views are the same for every K.

    Source: Hoffer et al. 2020, table 4; its released code averages logits.
    """
    if views < 1:
        raise ValueError(f"views is {views}; it must be at least 1")
    if average not in AVERAGES:
        raise ValueError(f"average is {average!r}; it must be one of {', '.join(AVERAGES)}")
    add = torch.logaddexp if average == "probabilities" else torch.add

    def scores(places: range, batch: ImageBatch, number: int) -> Tensor:
        with noise_context(Noise(seed, number, 0, places)):  # each picture in the place of a copy of one row
            return _log_probabilities(model, batch, view, device)

    first = 0
    for place in range(len(batches)):
        batch = batches[place]
        places = range(first, first + len(batch.labels))
        total = functools.reduce(add, (scores(places, batch, number) for number in range(views)))
        # Log-probabilities are logits less a constant of each row and view, which the softmax takes away again.
        mean = total - math.log(views) if average == "probabilities" else (total / views).log_softmax(dim=1)
        yield ScoredImages(batch.labels, mean.cpu())
        first = places.stop


def _log_probabilities(model: nn.Module, batch: ImageBatch, view: ImageView, device: torch.device) -> Tensor:
    with torch.no_grad():
        images = view(batch.images.to(device), batch.sizes.to(device))
        logits: Tensor = model(images.to(next(model.parameters()).dtype))
        return logits.float().log_softmax(dim=1)
