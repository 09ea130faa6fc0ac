"""Progress of a run: its position in the data, the best so far, and what it has used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

_FORMER_NAMES = {
    "unique_tokens": "unique",
    "processed_tokens": "processed",
    "rounded_off": "last_finished_update",
    "pending": "validation_pending",
}
"""Names of fields in older checkpoints → their names here."""


@dataclass
class Progress:
    """State of the training loop that a restart needs; the trainer keeps its own counters.

    Attributes:
        epoch: the 1-based epoch in hand.
        updates_in_epoch: updates of it that were made or skipped.
        updates_of_epoch: updates that it has; other data would have another number.
        last_finished_update: the update whose validation and saving are done.
        validation_pending: whether the run was stopped between an update and its validation.
        best: the best value of the deciding metric.
        validations_since_best: in a row, for patience.
        best_checkpoints: (value, file name) of what `--keep-best-checkpoints` keeps, best first.
        latest: metrics of the last validation.
        unique: target tokens or images seen, each once per pass over it.
        processed: target tokens or images that passed through the model, copies included.
        elapsed_s: seconds of training before this start of the process.
    """

    epoch: int = 1
    updates_in_epoch: int = 0
    updates_of_epoch: int = 0
    last_finished_update: int = 0
    validation_pending: bool = False
    best: float | None = None
    validations_since_best: int = 0
    best_checkpoints: list[tuple[float, str]] = field(default_factory=list)
    latest: dict[str, float] = field(default_factory=dict)
    unique: int = 0
    processed: int = 0
    elapsed_s: float = 0.0

    def next_epoch(self) -> None:
        """Moves to the start of the next epoch."""
        self.epoch += 1
        self.updates_in_epoch = 0

    def record_validation(self, value: float, *, maximize: bool) -> bool:
        """Records a validation's deciding metric; returns whether it is the best so far, which a NaN never is."""
        better = value == value and (self.best is None or (value > self.best if maximize else value < self.best))
        if better:
            self.best = value
        self.validations_since_best = 0 if better else self.validations_since_best + 1
        return better

    def extra_state(self) -> dict[str, Any]:
        """Form in a checkpoint's `extra_state`, under fairseq's keys where they mean the same."""
        return {
            "train_iterator": {
                "version": 2,
                "epoch": self.epoch,
                "iterations_in_epoch": self.updates_in_epoch,
                "shuffle": True,
            },
            "val_loss": self.latest.get("loss"),
            "best": self.best,
            "previous_training_time": self.elapsed_s,
            "progress": asdict(self),
        }

    @classmethod
    def from_extra_state(cls, extra_state: Mapping[str, Any]) -> Progress:
        """Reads `extra_state` back.

        Raises:
            KeyError, TypeError: if it isn't one of ours.
        """
        values = {_FORMER_NAMES.get(name, name): value for name, value in extra_state["progress"].items()}
        values["best_checkpoints"] = [(float(value), str(name)) for value, name in values["best_checkpoints"]]
        progress = cls(**values)
        for name, default in asdict(cls(best=0.0)).items():
            value = getattr(progress, name)
            if not isinstance(value, type(default)) and not (name == "best" and value is None):
                raise TypeError(f"{name} is {value!r}")
        return progress

    def forget_best(self) -> None:
        """Forgets the best, so that the next validation is it."""
        self.best, self.validations_since_best, self.best_checkpoints = None, 0, []

    def reset_meters(self) -> None:
        """Forgets the best, the times and the counts; the position stays."""
        self.forget_best()
        fresh = Progress()
        for name in ("latest", "unique", "processed", "elapsed_s"):
            setattr(self, name, getattr(fresh, name))

    def reset_position(self) -> None:
        """Moves back to the start of the data."""
        self.epoch, self.updates_in_epoch, self.validation_pending = 1, 0, False
