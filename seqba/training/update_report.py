"""Report of an update: its metrics, and the status of all ranks."""

from __future__ import annotations

from dataclasses import dataclass

from seqba.statistics import CellSplit
from seqba.training.agreement import GOING_ON, Status
from seqba.training.totals import Totals


@dataclass(frozen=True)
class UpdateReport:
    """Metrics of one update.

    Attributes:
        update: its 1-based number; a skipped one has the number that the next one will try again.
        lr: learning rate of the step.
        totals: sums over the grid: the loss, its weight (target tokens, sentences or images), and the task's further
            sums ("nll" in nats, and what else there is) over the processed tokens or images.
        unique: distinct target tokens or images seen (each once, however many copies).
        processed: target tokens or images that passed through the model, those of all copies.
        copies: M of this update.
        grad_norm: L2 norm of the merged gradient before clipping.
        clipped: whether it was scaled down.
        skipped: whether the loss or gradient was not finite, so that no step was made.
        status: of all ranks as the update began.
        split: the variance of the gradient by its cells, where the update was measured.
    """

    update: int
    lr: float
    totals: Totals
    unique: int
    processed: int
    copies: int
    grad_norm: float
    clipped: bool
    skipped: bool
    status: Status = GOING_ON
    split: CellSplit | None = None

    @property
    def loss(self) -> float:
        """Mean loss over the grid, in nats per weight."""
        return self.totals.mean_loss

    @property
    def weight(self) -> float:
        """Weight that the loss was divided by."""
        return self.totals.weight

    @property
    def means(self) -> dict[str, float]:
        """Means of the task's further sums, per token or image."""
        return self.totals.means
