"""Tasks of toy pictures, and what a model sees of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from seqba.tasks.image_classification import ImageClassification
from seqba.tasks.image_options import ImageOptions
from seqba.tasks.options import BatchOptions, CriterionOptions


def open_task(
    folder: Path, *, rows: int = 6, seed: int = 1, smoothing: float = 0.0, valid_rows: int | None = None, **options: Any
) -> ImageClassification:
    criterion = CriterionOptions("label_smoothed_cross_entropy", smoothing) if smoothing else CriterionOptions()
    batches = BatchOptions(batch_size=rows, batch_size_valid=valid_rows)
    return ImageClassification(str(folder), ImageOptions(**options), batches, criterion, seed=seed)


class Constant(nn.Module):
    """Logits that don't look at the pictures."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, images: Tensor, mixing: object = None) -> Tensor:
        return self.logits


def seen_by_model(task: ImageClassification) -> list[Tensor]:
    """What a model sees of a batch to validate on and one to learn from, in evaluation and in training."""
    seen: list[Tensor] = []

    class Looker(Constant):
        def forward(self, images: Tensor, mixing: object = None) -> Tensor:
            seen.append(images)
            return self.logits

    for batch in (task.validation("val")[0], task.epoch(1)[0]):
        model = Looker(torch.zeros(2, 2))
        task.loss(model.eval(), batch)
        task.loss(model.train(), batch)
    return seen
