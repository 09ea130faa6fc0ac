"""Decisions of a run from its counts, made without a model: when it validates, saves and ends."""

from __future__ import annotations

from dataclasses import dataclass

from seqba.training.options import TrainingOptions


@dataclass(frozen=True)
class Position:
    """Counts after an update, as options count them.

    Attributes:
        updates: steps made.
        epochs: whole epochs.
        made_step: whether the latest update made a step that nothing has been done for yet; a skipped one made none.
        ends_epoch: whether the latest update was the last one of the epoch `epochs`.
        validations_since_best: in a row, for patience.
        elapsed_s: seconds of training.
    """

    updates: int
    epochs: int
    made_step: bool = True
    ends_epoch: bool = False
    validations_since_best: int = 0
    elapsed_s: float = 0.0

    def is_every(self, updates: int) -> bool:
        """Whether the step just made is one of every so many (0 = never)."""
        return updates > 0 and self.made_step and self.updates % updates == 0

    def ends_every(self, epochs: int) -> bool:
        """Whether the update just made ends one of every so many epochs."""
        return self.ends_epoch and self.epochs % epochs == 0


@dataclass(frozen=True)
class Due:
    """Work that follows an update.

    Attributes:
        validate: whether to validate.
        save: whether to write a checkpoint, also where the validation finds no new best.
        names: of the checkpoint, besides best and last.
    """

    validate: bool = False
    save: bool = False
    names: tuple[str, ...] = ()


def due_after(options: TrainingOptions, position: Position, *, is_final: bool) -> Due:
    """Work that is due after an update.

    Args:
        options: intervals of validation and checkpoints.
        position: of the update.
        is_final: whether it is the run's last one, which is saved in any case, and validated where any is.
    """
    saving, validation = options.checkpoints, options.validation
    ends_saved_epoch = position.ends_every(saving.save_interval)
    is_saved_update = position.is_every(saving.save_interval_updates)
    names: tuple[str, ...] = ()
    if ends_saved_epoch:
        names = () if saving.no_epoch_checkpoints else (f"checkpoint{position.epochs}.pt",)
    elif is_saved_update and not position.ends_epoch:
        names = (f"checkpoint_{position.epochs + 1}_{position.updates}.pt",)
    return Due(
        validate=not validation.disable_validation
        and (
            is_final
            or position.ends_every(validation.validate_interval)
            or position.is_every(validation.validate_interval_updates)
            or is_saved_update
        ),
        save=is_final or ends_saved_epoch or is_saved_update,
        names=names,
    )


def reached_limit(options: TrainingOptions, position: Position, *, lr_has_ended: bool = False) -> str | None:
    """Option that ends the run here, with its value; None to train on.

    Args:
        options: the limits.
        position: where the run is.
        lr_has_ended: see `lr_has_ended`.
    """
    limits, patience = options.run, options.validation.patience
    if 0 < limits.max_update <= position.updates:
        return f"--max-update {limits.max_update}"
    if 0 < limits.max_epoch <= position.epochs:
        return f"--max-epoch {limits.max_epoch}"
    if 0 < limits.stop_time_hours <= position.elapsed_s / 3600:
        return f"--stop-time-hours {limits.stop_time_hours:g}"
    if 0 < patience <= position.validations_since_best:
        return f"--patience {patience}"
    if lr_has_ended:
        return f"--stop-min-lr {options.schedule.stops_below:g}"
    return None


def lr_has_ended(lr: float, next_lr: float, *, stop_min_lr: float) -> bool:
    """Whether the learning rate has fallen to `stop_min_lr`, from the latest update's to the next one's.

    While it rises, in the warm-up, it may be below.
    """
    return next_lr <= min(stop_min_lr, lr)
