"""The training loop: step, do what is due, validate, save, stop."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from seqba.core import ALONE
from seqba.distributed.batch_broadcast import BatchBroadcast, raise_read_error
from seqba.errors import UserError
from seqba.tasks import MicroBatches
from seqba.training.agenda import Position, due_after, lr_has_ended, reached_limit
from seqba.training.agreement import Interrupted, Status, summed
from seqba.training.arms import BaselineEpochs, GridShape
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

STOPPED = "a signal"
"""Reason for the end of a run that has reached no limit."""


@dataclass
class TrainingLoop:
    """Trains update by update, until a limit is reached or a signal asks to stop.

    Attributes:
        trainer: makes the updates.
        grid: number of micro-batches of an update, and of copies.
        record: identity of the run, with its options; every checkpoint has it.
        progress: where to begin; a fresh one for a new run.
        splits: name of a validation split → its batches; the first one decides what is best.
        folder: where checkpoints go.
        log: where lines go.
        extra_metrics: further metrics of a validation; None for none.
        broadcast: who reads the batches, where several ranks have copies of one; None for each of them.
        epochs: those of the arm baseline, in which options count, where this arm passes over the data at another pace;
            None where its own epochs are those.
    """

    trainer: Trainer[Any]
    grid: GridShape
    record: RunRecord
    progress: Progress
    splits: Mapping[str, MicroBatches[Any]]
    folder: CheckpointFolder
    log: TrainingLog
    extra_metrics: ExtraMetrics | None = None
    broadcast: BatchBroadcast | None = None
    epochs: BaselineEpochs | None = None

    def __post_init__(self) -> None:
        """Starts the clock of the run."""
        self._started = time.monotonic() - self.progress.elapsed_s
        self._agreed = Status(elapsed_s=self.progress.elapsed_s)

    @property
    def options(self) -> TrainingOptions:
        """Options of the run."""
        return self.record.training

    def run(self, stop: StopSignal) -> str:
        """Trains to the end of the run, or until a signal asks to stop.

        Args:
            stop: looked at between updates, and between the batches of a validation.

        Returns:
            The reason for the end: the limit that was reached ("--max-update 100", say), or `STOPPED`.

        Raises:
            UserError: after too many updates without a finite gradient, or if the data isn't what the checkpoint was
                trained on.
        """
        if self.progress.validation_pending:
            self._open_epoch()  # which refuses data that are no longer those of the checkpoint
            ending = self._after_update(stop)
        else:
            ending = self._ending(self._limit(self._position()), stop)
        batches = self._batches(stop)
        while ending is None:
            self._step(*next(batches))
            ending = self._after_update(stop)
        return ending

    def _batches(self, stop: StopSignal) -> Iterator[tuple[UpdateBatch[Any], Status]]:
        """Batches of all updates, epoch after epoch, each with this rank's status at the beginning of the update."""
        while True:
            updates = self._open_epoch()
            first = self.progress.updates_in_epoch
            coming = updates.read(first, update=self.trainer.tried + 1)
            self._agreed = self._own_status(stop, coming).over(self.trainer.ranks, self.trainer.device)
            for number in range(first, len(updates)):
                batch = self._readable(coming)
                coming = updates.read(number + 1, update=self.trainer.tried + 2)
                yield batch, self._own_status(stop, coming)

    def _step(self, batch: UpdateBatch[Any], status: Status) -> None:
        """Makes an update and logs it."""
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
            # The log's reader has gone, or its disk is full: the update isn't lost for that.
            progress.validation_pending = True
            self._save_alone_before_exit()
            raise

    def _after_update(self, stop: StopSignal) -> str | None:
        """Validates and saves where that is due after an update, and goes on to the next epoch.

        A validation that is stopped, or finds a batch that can't be read, stays pending: the checkpoint says so, and
        the next start makes up for it.

        Returns:
            The reason to end here; None to go on.
        """
        progress = self.progress
        ends_epoch = progress.updates_in_epoch == progress.updates_of_epoch
        position = self._position(ends_epoch=ends_epoch)
        limit = self._limit(position)
        due = due_after(self.options, position, is_final=limit is not None)
        names = list(due.names)
        if due.validate:
            best = self._validate_or_save(stop)
            if best is None:
                return STOPPED
            names += best
        progress.validation_pending = False
        progress.last_finished_update = self.trainer.updates
        if ends_epoch:
            progress.next_epoch()
        if due.validate:
            limit = self._limit(self._position())  # a validation moves patience, and takes time
        ending = self._ending(limit, stop)
        if due.save or names or ending is not None:
            self._save(names)
        return ending

    def _validate_or_save(self, stop: StopSignal) -> list[str] | None:
        """Validates; where that can't end, saves what was learned, with the validation pending.

        Returns:
            Names of `_validate`; None where a signal stopped it.

        Raises:
            UserError: for a batch that can't be read, here or on another rank.
        """
        self.progress.validation_pending = True
        before = copy.deepcopy(self.progress)
        try:
            return self._validate(stop)
        except Interrupted:
            self._save([])
            return None
        except UserError:
            self._save_before_exit()
            raise
        except OSError:  # of the log, as in `_step`: what the validation recorded is recorded again
            self.progress = before
            self._save_alone_before_exit()
            raise

    def _validate(self, stop: StopSignal) -> list[str]:
        """Validates on every split.

        Returns:
            Names under which the state is kept as one of the best.
        """
        rules, progress = self.options.validation, self.progress
        metrics = {}
        with self.trainer.optimisation.averaged_weights():
            for name, batches in self.splits.items():
                metrics[name] = validate(self.trainer, batches, stop.is_set)
                if self.extra_metrics is not None:
                    metrics[name] |= self.extra_metrics(self.trainer.model, name, stop.is_set)
        progress.latest = next(iter(metrics.values()))
        value, maximize = progress.latest[rules.best_checkpoint_metric], rules.maximize_best_checkpoint_metric
        names = [BEST] if progress.record_validation(value, maximize=maximize) else []
        kept = self.folder.rank_best(progress, rules.best_checkpoint_metric, value, maximize=maximize)
        for name in self.splits:
            self.log.validation(name, metrics[name], progress, self.trainer.updates)
        self.trainer.optimisation.observe(progress.latest["loss"], self.trainer.updates)
        return names if kept is None else [*names, kept]

    def _open_epoch(self) -> EpochUpdates[Any]:
        """Updates of the epoch in hand.

        Raises:
            UserError: if there are more or fewer than there were when the checkpoint was written.
        """
        progress, trainer = self.progress, self.trainer
        micro_batches = trainer.task.epoch(progress.epoch, self.grid.micro_batches(progress.epoch))
        updates = EpochUpdates(micro_batches, self.grid, progress.epoch, trainer.ranks, self.broadcast, trainer.device)
        if progress.updates_in_epoch and progress.updates_of_epoch != len(updates):
            raise UserError(
                f"epoch {progress.epoch} has {len(updates)} updates, but had {progress.updates_of_epoch} when the "
                "checkpoint was written: the training data has changed; start over with --reset-dataloader, or "
                "with another --save-dir"
            )
        progress.updates_of_epoch = len(updates)
        return updates

    def _readable(self, batch: UpdateBatch[Any] | UserError | None) -> UpdateBatch[Any]:
        """Batch that was read; where a rank can't read its part (a broken picture), saves what was learned, raises."""
        if not self._agreed.unreadable and isinstance(batch, UpdateBatch):
            return batch
        if self.trainer.updates:
            self._save_before_exit()
        raise_read_error(batch)

    def _own_status(self, stop: StopSignal, coming: object) -> Status:
        """Status of this rank, which has tried to read what comes next."""
        return Status(stop.is_set(), isinstance(coming, UserError), time.monotonic() - self._started)

    def _ending(self, limit: str | None, stop: StopSignal) -> str | None:
        """Reason to end here: a limit, or a signal to any rank, which several ranks know of an update later."""
        if limit is not None:
            return limit
        is_stopped = stop.is_set() if self.trainer.ranks is ALONE else self._agreed.stop
        return STOPPED if is_stopped else None

    def _limit(self, position: Position) -> str | None:
        """Limit that has been reached; None if there is none."""
        updates, schedule = self.trainer.updates, self.trainer.optimisation.schedule
        stop_min_lr = self.options.schedule.stops_below
        has_ended = (
            stop_min_lr >= 0
            and updates > 0
            and lr_has_ended(schedule(updates), schedule(updates + 1), stop_min_lr=stop_min_lr)
        )
        return reached_limit(self.options, position, lr_has_ended=has_ended)

    def _position(self, *, ends_epoch: bool = False) -> Position:
        """Counts of the run as it stands, in epochs as options count them.

        Args:
            ends_epoch: whether the latest update has ended an epoch of this arm that isn't counted yet.
        """
        updates, progress = self.trainer.updates, self.progress
        made_step = updates != progress.last_finished_update
        epochs = progress.epoch if ends_epoch else progress.epoch - 1
        if self.epochs is not None:
            epochs = self.epochs.done(updates)
            ends_epoch = made_step and self.epochs.is_end(updates)
        return Position(updates, epochs, made_step, ends_epoch, progress.validations_since_best, self._elapsed_s())

    def _elapsed_s(self) -> float:
        """Seconds of training; with several ranks the mean of their clocks at the latest update, which all know."""
        return time.monotonic() - self._started if self.trainer.ranks is ALONE else self._agreed.elapsed_s

    def _save(self, names: list[str]) -> None:
        """Writes a checkpoint, last and under these names, and removes those that needn't be kept; by all ranks."""
        self.progress.elapsed_s = time.monotonic() - self._started
        state = capture(self.trainer, self.progress, self.record)  # each rank has a part of what is carried
        if self.trainer.ranks.is_first:
            self.folder.save(state, names)
            self.folder.prune(self.progress, self.options.validation.best_checkpoint_metric)

    def _save_before_exit(self) -> None:
        """Saves what was learned before an error that all ranks know of ends the run."""
        self._save([])
        summed(self.trainer.ranks, [0.0], self.trainer.device)  # torchrun ends the others of one that has left

    def _save_alone_before_exit(self) -> None:
        """Saves what was learned before an error of this rank ends the run, unless other ranks have a part of it."""
        ranks = self.trainer.ranks
        parted = self.trainer.optimisation.is_sharded or self.trainer.task.carried is not None
        if ranks is ALONE or (not parted and ranks.is_first):
            self._save([])
