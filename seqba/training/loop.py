"""The training loop: epochs, updates, validation, checkpoints, and the reasons to end."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from seqba.core import ALONE
from seqba.distributed.batch_broadcast import BatchBroadcast, raise_read_error
from seqba.errors import UserError
from seqba.tasks import Task
from seqba.training.agenda import Position, due_after, lr_has_ended, reached_limit
from seqba.training.agreement import Interrupted, Status, summed
from seqba.training.arms import BaselineEpochs, Grid
from seqba.training.batches import EpochUpdates, UpdateBatch
from seqba.training.folder import BEST, CheckpointFolder
from seqba.training.log import TrainingLog
from seqba.training.options import TrainingOptions
from seqba.training.progress import Progress
from seqba.training.record import RunRecord
from seqba.training.resume import capture
from seqba.training.signals import StopSignal
from seqba.training.trainer import Trainer
from seqba.training.validation import validate

ExtraMetrics = Callable[[nn.Module, str, Callable[[], bool]], dict[str, float]]
"""(model, name of a validation split, whether to stop) → further metrics, BLEU for instance."""


@dataclass
class TrainingLoop:
    """Trains until a limit is reached or a signal asks to stop.

    Attributes:
        task: gives the data.
        trainer: makes the updates.
        grid: how many micro-batches an update has.
        options: everything else.
        progress: where to begin; a fresh one for a new run.
        record: the identity of the run, for its checkpoints.
        folder: where checkpoints go.
        log: where lines go.
        subsets: validation splits; the first one decides what is best.
        extra_metrics: further metrics of a validation, None for none.
        broadcast: who reads the batches, where several ranks have copies of one; None for each of them.
        epochs: those of the arm baseline, which options count in, where this arm passes over the data at another pace;
            None where its own epochs are those.
    """

    task: Task[Any]
    trainer: Trainer[Any]
    grid: Grid
    options: TrainingOptions
    progress: Progress
    record: RunRecord
    folder: CheckpointFolder
    log: TrainingLog
    subsets: list[str]
    extra_metrics: ExtraMetrics | None = None
    broadcast: BatchBroadcast | None = None
    epochs: BaselineEpochs | None = None

    def __post_init__(self) -> None:
        """Starts the clock of the run."""
        self._started = time.monotonic() - self.progress.elapsed_s
        self._agreed = Status(elapsed_s=self.progress.elapsed_s)

    def run(self, stop: StopSignal) -> str | None:
        """Trains.

        Args:
            stop: looked at between updates, and between the batches of a validation.

        Returns:
            The limit that ended training; None if `stop` did.

        Raises:
            UserError: after too many updates without a finite gradient, or if the data isn't what the checkpoint was
                trained on.
        """
        limit = self._limit(self._position())
        if self.progress.validation_pending:
            limit = self._after_update(self._open_epoch(), stop)
        while limit is None and not self._shall_stop(stop):
            updates = self._open_epoch()
            first = self.progress.updates_in_epoch
            coming = updates.read(first)
            self._agreed = self._own_status(stop, coming).over(self.trainer.ranks, self.trainer.device)
            for number in range(first, len(updates)):
                batch = self._readable(coming)
                coming = updates.read(number + 1)
                self._update(batch, self._own_status(stop, coming))
                limit = self._after_update(updates, stop)
                if limit is not None or self._shall_stop(stop):
                    break
        return None if self.progress.validation_pending else limit

    def _open_epoch(self) -> EpochUpdates[Any]:
        progress = self.progress
        size = self.grid.micro_batches(progress.epoch)
        micro_batches = self.task.epoch(progress.epoch, size)
        updates = EpochUpdates(micro_batches, size, self.grid.copies, self.trainer.ranks, self.broadcast)
        if progress.updates_in_epoch and progress.updates_of_epoch != len(updates):
            raise UserError(
                f"epoch {progress.epoch} has {len(updates)} updates, but had {progress.updates_of_epoch} when the "
                "checkpoint was written: the training data has changed; start over with --reset-dataloader, or "
                "with another --save-dir"
            )
        progress.updates_of_epoch = len(updates)
        return updates

    def _readable(self, batch: UpdateBatch[Any] | UserError | None) -> UpdateBatch[Any]:
        """The batch, unless a rank can't read its part (a broken picture): what was learned so far isn't lost then."""
        if not self._agreed.unreadable and isinstance(batch, UpdateBatch):
            return batch
        if self.trainer.updates:
            self._save_before_exit()
        raise_read_error(batch)

    def _update(self, batch: UpdateBatch[Any], status: Status) -> None:
        started = time.monotonic()
        report = self.trainer.update(batch, status)
        self._agreed = report.status
        progress = self.progress
        progress.updates_in_epoch += 1
        progress.unique += report.unique
        progress.processed += report.processed
        try:
            self.log.update(report, progress, self.trainer.skipped, time.monotonic() - started)
        except OSError:
            # Nobody reads the log any more, or its disk is full: the update isn't lost for that.
            progress.validation_pending = True
            self._save_alone_before_exit()
            raise

    def _after_update(self, updates: EpochUpdates[Any], stop: StopSignal) -> str | None:
        """Does what is due after an update: validate, save, go on to the next epoch; returns the limit reached.

        A stop in the middle of a validation leaves it pending: the checkpoint says so, and the next start does it.
        """
        progress = self.progress
        ends_epoch = progress.updates_in_epoch == len(updates)
        position = self._position(ends_epoch=ends_epoch)
        limit = self._limit(position)
        due = due_after(self.options, position, is_final=limit is not None)
        best_names: list[str] = []
        if due.validate:
            try:
                best_names = self._validate(stop)
            except Interrupted:
                progress.validation_pending = True
                self._agreed = replace(self._agreed, stop=True)
                self._save([])
                return None
            except UserError:
                # A picture that can't be read, say: the epoch before it isn't lost for that.
                progress.validation_pending = True
                self._save_before_exit()
                raise
        progress.validation_pending = False
        progress.last_finished_update = self.trainer.updates
        if ends_epoch:
            progress.next_epoch()
        if due.validate:
            limit = self._limit(self._position())  # a validation moves patience, and takes time
        if due.save or best_names or limit is not None or self._shall_stop(stop):
            self._save([*due.names, *best_names])
        return limit

    def _own_status(self, stop: StopSignal, coming: object) -> Status:
        """Status of this rank, which has tried to read what comes next."""
        return Status(stop.is_set(), isinstance(coming, UserError), time.monotonic() - self._started)

    def _shall_stop(self, stop: StopSignal) -> bool:
        """Whether a signal has come; with several ranks, to any of them before the latest update, as all then know."""
        return stop.is_set() if self.trainer.ranks is ALONE else self._agreed.stop

    def _elapsed_s(self) -> float:
        """Seconds of training; with several ranks the mean of their clocks at the latest update, which all know."""
        return time.monotonic() - self._started if self.trainer.ranks is ALONE else self._agreed.elapsed_s

    def _position(self, *, ends_epoch: bool = False) -> Position:
        """Where the run is, in epochs as options count them.

        Args:
            ends_epoch: whether the latest update has ended an epoch of this arm's that isn't counted yet.
        """
        updates, progress = self.trainer.updates, self.progress
        made_step = updates != progress.last_finished_update
        epochs = progress.epoch if ends_epoch else progress.epoch - 1
        if self.epochs is not None:
            epochs = self.epochs.done(updates)
            ends_epoch = made_step and self.epochs.is_end(updates)
        return Position(updates, epochs, made_step, ends_epoch, progress.validations_since_best, self._elapsed_s())

    def _limit(self, position: Position) -> str | None:
        """The limit that has been reached, if any."""
        updates, schedule, stop_min_lr = self.trainer.updates, self.trainer.schedule, self.options.schedule.stop_min_lr
        has_ended = (
            stop_min_lr >= 0
            and updates > 0
            and lr_has_ended(schedule(updates), schedule(updates + 1), stop_min_lr=stop_min_lr)
        )
        return reached_limit(self.options, position, lr_has_ended=has_ended)

    def _validate(self, stop: StopSignal) -> list[str]:
        """Validates on every split; returns the names under which the state is one of the best."""
        rules, progress = self.options.validation, self.progress
        metrics = {}
        with self.trainer.averaged_weights():
            for subset in self.subsets:
                metrics[subset] = validate(self.trainer, self.task.validation(subset), stop.is_set)
                if self.extra_metrics is not None:
                    metrics[subset] |= self.extra_metrics(self.trainer.model, subset, stop.is_set)
        progress.latest = metrics[self.subsets[0]]
        value, maximize = progress.latest[rules.best_checkpoint_metric], rules.maximize_best_checkpoint_metric
        names = [BEST] if progress.record_validation(value, maximize=maximize) else []
        kept = self.folder.rank_best(progress, rules.best_checkpoint_metric, value, maximize=maximize)
        for subset in self.subsets:
            self.log.validation(subset, metrics[subset], progress, self.trainer.updates)
        self.trainer.observe(progress.latest["loss"])
        return names if kept is None else [*names, kept]

    def _save(self, names: list[str]) -> None:
        self.progress.elapsed_s = time.monotonic() - self._started
        state = capture(self.trainer, self.progress, self.record)  # by all ranks: each has a part of what is carried
        if self.trainer.ranks.is_first:
            self.folder.save(state, names)
            self.folder.prune(self.progress, self.options.validation.best_checkpoint_metric)

    def _save_before_exit(self) -> None:
        """Saves what was learned before an error that all ranks know of ends the run."""
        self._save([])
        summed(self.trainer.ranks, [0.0], self.trainer.device)  # torchrun ends the others of one that has left

    def _save_alone_before_exit(self) -> None:
        """Saves what was learned before an error of this rank ends the run, unless other ranks have a part of it."""
        ranks, parted = self.trainer.ranks, self.trainer.is_sharded or self.task.carried is not None
        if ranks is ALONE or (not parted and ranks.is_first):
            self._save([])
