"""Image classification: pictures read once an update, and seen by each copy through its own crop, flip and cutout."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from seqba.core import Carry
from seqba.data.batching import permutation
from seqba.data.images import ImageBatch, ImageBatches, open_images
from seqba.errors import UserError
from seqba.nn import Mixup
from seqba.nn.accuracy import count_right
from seqba.nn.auxiliary import AuxiliaryLogits
from seqba.nn.images.mixup import Mixing
from seqba.noise.fork import copies_at_fork, per_copy
from seqba.tasks import Unit
from seqba.tasks.image_options import HELD_OUT, ImageOptions
from seqba.tasks.image_splits import (
    check_classes,
    classes_digest,
    hold_out_order,
    model_image_size,
    open_split,
    random_view,
)
from seqba.tasks.image_views import evaluation_decode_size, evaluation_view
from seqba.tasks.options import BatchOptions, CriterionOptions

PLACES = 3
"""Where manifold mixup may mix: at the input, and before the second and the third stage of a model."""


class ImageClassification:
    """Classification of pictures.

        loss = Σ_n cross-entropy(model(T_i(x_n)), y_n)

    In training, a model with an auxiliary head adds that head's cross-entropy, times its weight (`AuxiliaryLogits`).

    A micro-batch is --batch-size different pictures; an epoch passes over all of them in an order that is a function of
    (seed, epoch), and leaves out the last few that make no whole batch. Everything random happens on the device, after
    the batch has been read once for all its copies.

    Args:
        data: CIFAR in its official binary layout, or a folder for each split with a folder for each class.
        options: the views, mixup, and what is held out.
        batches: --batch-size is B.
        criterion: label smoothing.
        seed: of the order.

    Attributes:
        classes: their names.
        image_size: side of the square that the model sees, in pixels.

    Raises:
        UserError: for pictures that are missing or broken, or options that don't fit them.

    Source: Hoffer et al. 2020, section 4.1.
    """

    unit: Unit = "images"

    def __init__(
        self, data: str, options: ImageOptions, batches: BatchOptions, criterion: CriterionOptions, *, seed: int
    ) -> None:
        if batches.batch_size is None:
            raise UserError("how many pictures is a micro-batch? Give --batch-size (64, say)")
        self.folder = Path(data)
        self.options = options
        self.batches = batches
        self.rows: int = batches.batch_size
        self.smoothing = criterion.label_smoothing
        self.seed = seed
        self.carried: Carry | None = None
        self._training = open_images(data, batches.train_subset, decode_size=options.decode_size)
        self.classes = list(self._training.classes)
        check_classes(self._training.name, len(self.classes), self.smoothing)
        self.image_size = model_image_size(self._training, options)
        self._training_rows = self._rows_to_learn()
        self._training_view = random_view(self._training, options, self.image_size)
        self._evaluation_view = evaluation_view(self.image_size)
        alpha = options.mixup or options.manifold_mixup
        stages, shared = PLACES if options.manifold_mixup else 1, options.mixup_lambda == "shared"
        self._mixup = Mixup(alpha, stages, shared=shared) if alpha else None
        self._validation: dict[str, ImageBatches] = {}

    def resized(self, batches: BatchOptions) -> ImageClassification:
        """The same pictures in micro-batches of another --batch-size.

        Raises:
            UserError: if there aren't so many pictures.
        """
        task = copy.copy(self)
        task.batches, task.rows = batches, batches.batch_size or self.rows
        task._training_rows = task._rows_to_learn(f", which --arm large-batch makes of {self.rows}")
        return task

    def state(self) -> dict[str, Any]:
        """Number of classes, a digest of their names, and the size of the model's pictures."""
        return {
            "task": "image_classification",
            "classes": len(self.classes),
            "classes_sha256": classes_digest(self.classes),
            "image_size": self.image_size,
        }

    def fingerprint(self, subset: str) -> str:
        """Digest of a split's pictures; what is held out is of those of training."""
        is_held_out = subset == HELD_OUT and self.options.hold_out > 0
        learned = is_held_out or subset == self.batches.train_subset
        return (self._training if learned else self.validation(subset).source).fingerprint()

    def epoch(self, epoch: int, micro_batches_per_update: int = 1) -> ImageBatches:
        """The micro-batches of the 1-based `epoch`, each of exactly --batch-size pictures."""
        random = np.random.PCG64(np.random.SeedSequence([self.seed, epoch]))
        order = self._training_rows[permutation(random, len(self._training_rows))]
        whole = len(order) // self.rows
        batches = np.split(order[: whole * self.rows], whole)
        return ImageBatches(self._training, batches, workers=self.options.num_workers)

    def validation(self, subset: str) -> ImageBatches:
        """All pictures of a split, in order, --batch-size-valid at a time (default: --batch-size)."""
        if subset not in self._validation:
            size = self.batches.batch_size_valid or self.rows
            self._validation[subset] = open_split(
                self.folder,
                subset,
                self.options,
                train_subset=self.batches.train_subset,
                batch_size=size,
                decode_size=evaluation_decode_size(self.options, self.image_size),
            )
        return self._validation[subset]

    def loss(self, model: nn.Module, batch: ImageBatch) -> tuple[Tensor, float, Mapping[str, Tensor]]:
        """Summed loss in nats, the number of images, and the sums nll, top1 and top5.

        In training the model sees a random view of each picture. Under mixup the loss is that of the mixed labels,
        while nll, top1 and top5 go by the label of the picture that isn't the partner.
        """
        if not model.training:
            logits = model(self._evaluation_view(batch.images, batch.sizes))
            return self._sums(logits, batch.labels, None)
        images = self._training_view(batch.images, batch.sizes)
        mixing = None if self._mixup is None else self._mixup.draw(len(images), images.device)
        logits = model(images, mixing)
        return self._sums(logits, per_copy(batch.labels), None if mixing is None else mixing.repeated(copies_at_fork()))

    def weight(self, batch: ImageBatch) -> float:
        """Images."""
        return float(len(batch.labels))

    def count(self, batch: ImageBatch) -> int:
        """Images."""
        return len(batch.labels)

    def learning_rate_factor(self, batch: ImageBatch) -> float:
        """1: batches are of one size."""
        return 1.0

    def _sums(
        self, output: Tensor | AuxiliaryLogits, labels: Tensor, mixing: Mixing | None
    ) -> tuple[Tensor, float, Mapping[str, Tensor]]:
        logits = (output.logits if isinstance(output, AuxiliaryLogits) else output).float()
        # The smoothing of the other tasks gives ε/(V − 1) to each wrong class, torch's ε/V to each class.
        smoothing = self.smoothing * logits.shape[1] / (logits.shape[1] - 1) if self.smoothing else 0.0

        def row_losses(labels: Tensor) -> Tensor:
            losses = nn.functional.cross_entropy(logits, labels, reduction="none", label_smoothing=smoothing)
            if not isinstance(output, AuxiliaryLogits):
                return losses
            auxiliary = output.auxiliary.float()
            return losses + output.weight * nn.functional.cross_entropy(
                auxiliary, labels, reduction="none", label_smoothing=smoothing
            )

        loss = row_losses(labels) if mixing is None else mixing.loss(row_losses, labels)
        with torch.no_grad():
            nll = nn.functional.cross_entropy(logits, labels, reduction="sum")
            sums = {"nll": nll, **count_right(logits, labels)}
        return loss.sum(), float(len(labels)), sums

    def _rows_to_learn(self, why: str = "") -> npt.NDArray[np.int64]:
        everything, held_out = len(self._training), self.options.hold_out
        if everything - held_out < self.rows:
            rest = f" less --hold-out {held_out}" if held_out else ""
            raise UserError(
                f"{self._training.name} has {everything} pictures{rest}, not even one --batch-size of {self.rows}{why}"
            )
        return hold_out_order(everything)[held_out:]
