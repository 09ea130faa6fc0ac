"""The training loop: epochs, updates, validation, checkpoints, and the reasons to end."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from seqba.core import ALONE
from seqba.distributed.batch_broadcast import BatchBroadcast, is_unread, whose
from seqba.errors import UserError
from seqba.tasks import Task
from seqba.training.agreement import summed
from seqba.training.arms import BaselineEpochs, Grid
from seqba.training.folder import BEST, CheckpointFolder
from seqba.training.groups import Group, Groups
from seqba.training.log import TrainingLog
from seqba.training.options import TrainingOptions
from seqba.training.progress import Progress
from seqba.training.signals import StopSignal
from seqba.training.state import capture
from seqba.training.trainer import Trainer
from seqba.training.validation import Interrupted, validate

Scores = Callable[[nn.Module, str, Callable[[], bool]], dict[str, float]]
"""(model, name of a validation split, whether to stop) → further metrics, BLEU for instance."""


@dataclass
class TrainingLoop:
    """Trains until a limit is reached or a signal asks to stop.

    Attributes:
        task: gives the data.
        trainer: makes the updates.
        grid: how many shards an update has.
        options: everything else.
        progress: where to begin; a fresh one for a new run.
        constants: the parts of a checkpoint that stay the same during the run (cfg, task_state, …).
        folder: where checkpoints go.
        log: where lines go.
        subsets: validation splits; the first one decides what is best.
        scores: further metrics of a validation, None for none.
        broadcast: who reads the batches, where several ranks have copies of one; None for each of them.
        epochs: those of the arm baseline, which options count in, where this arm passes over the data at another pace;
            None where its own epochs are those.
    """

    task: Task[Any]
    trainer: Trainer[Any]
    grid: Grid
    options: TrainingOptions
    progress: Progress
    constants: Mapping[str, Any]
    folder: CheckpointFolder
    log: TrainingLog
    subsets: list[str]
    scores: Scores | None = None
    broadcast: BatchBroadcast | None = None
    epochs: BaselineEpochs | None = None

    def __post_init__(self) -> None:
        """Starts the clock of the run."""
        self._began_at_s = self.progress.elapsed_s
        self._started = time.monotonic() - self._began_at_s
        self._agreed: Mapping[str, float] | None = None if self.trainer.ranks is ALONE else {}
        self._unread = 0.0  # how many ranks can't read what the coming update needs of them

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
        if self.progress.pending:
            self._round_off(self._open_epoch(), stop)
        while not self._shall_stop(stop) and self._limit() is None:
            groups = self._open_epoch()
            first = self.progress.updates_in_epoch
            coming = self._read(groups, first)
            self._unread = summed(self.trainer.ranks, [is_unread(coming)], self.trainer.device)[0]
            for number in range(first, len(groups)):
                shards = self._checked(coming)
                coming = self._read(groups, number + 1)
                self._update(shards, {"stop": stop.is_set(), "unread": is_unread(coming)})
                self._round_off(groups, stop)
                if self._shall_stop(stop) or self._limit() is not None:
                    break
        return None if self.progress.pending else self._limit()

    def _open_epoch(self) -> Groups:
        progress = self.progress
        size = self.grid.shards(progress.epoch)
        groups = Groups(self.task.epoch(progress.epoch, size), size)
        if progress.updates_in_epoch and progress.updates_of_epoch != len(groups):
            raise UserError(
                f"epoch {progress.epoch} has {len(groups)} updates, but had {progress.updates_of_epoch} when the "
                "checkpoint was written: the training data has changed; start over with --reset-dataloader, or "
                "with another --save-dir"
            )
        progress.updates_of_epoch = len(groups)
        return groups

    def _read(self, groups: Groups, number: int) -> Group | UserError | None:
        """What update `number` of the epoch needs here, or why it can't be read; None after the last one.

        It is read before the update that precedes it, whose message takes along whether it could be: so all ranks know
        in time that one can't go on, and it costs no message.
        """
        if number == len(groups):
            return None
        shards = groups[number]
        try:
            shards.load(self.trainer.own_shards(len(shards)), self.broadcast)
        except UserError as error:
            return error
        return shards

    def _checked(self, shards: Group | UserError | None) -> Group:
        """The shards, unless a rank can't read its own (a broken picture): what was learned so far isn't lost then."""
        if not self._unread and isinstance(shards, Group):
            return shards
        if self.trainer.updates:
            self._save_together()
        raise whose(shards)

    def _update(self, shards: Group, told: Mapping[str, float]) -> None:
        started = time.monotonic()
        notes = {**told, "elapsed_s": started - self._started, "ranks": 1.0}
        report = self.trainer.update(shards, notes)
        self._unread = report.notes["unread"]
        if self._agreed is not None:
            self._agreed = report.notes
        progress = self.progress
        progress.updates_in_epoch += 1
        progress.unique += report.unique
        progress.processed += report.processed
        try:
            self.log.update(report, progress, self.trainer.skipped, time.monotonic() - started)
        except OSError:
            # Nobody reads the log any more, or its disk is full: the update isn't lost for that.
            progress.pending = True
            self._rescue()
            raise

    def _round_off(self, groups: Groups, stop: StopSignal) -> None:
        """Does what is due after an update: validate, save, go on to the next epoch.

        A stop in the middle of a validation leaves it pending: the checkpoint says so, and the next start does it.
        """
        progress = self.progress
        ends_epoch = progress.updates_in_epoch == len(groups)
        ended = self._ended_epoch(ends_epoch)
        final = self._limit(ended) is not None
        names = self._due_checkpoints(ended)
        save = final or names is not None
        names = names or []
        if final or self._validation_due(ended):
            try:
                best_names = self._validate(stop)
            except Interrupted:
                progress.pending = True
                if self._agreed is not None:
                    self._agreed = {**self._agreed, "stop": 1.0}
                self._save([])
                return
            except UserError:
                # A picture that can't be read, say: the epoch before it isn't lost for that.
                progress.pending = True
                self._save_together()
                raise
            names += best_names
            save = save or bool(best_names)
        progress.pending = False
        progress.rounded_off = self.trainer.updates
        if ends_epoch:
            progress.next_epoch()
        if save or self._shall_stop(stop) or self._limit() is not None:
            self._save(names)

    def _shall_stop(self, stop: StopSignal) -> bool:
        """Whether a signal has come; with several ranks, to any of them before the latest update, as all then know."""
        return stop.is_set() if self._agreed is None else self._agreed.get("stop", 0.0) > 0

    def _elapsed_s(self) -> float:
        """Seconds of training; with several ranks the mean of their clocks at the latest update, which all know."""
        if self._agreed is None:
            return time.monotonic() - self._started
        return self._agreed["elapsed_s"] / self._agreed["ranks"] if "ranks" in self._agreed else self._began_at_s

    def _every(self, updates: int) -> bool:
        """Whether the update just made is one of every so many (0 = never); a skipped one made no step."""
        done = self.trainer.updates
        return updates > 0 and done != self.progress.rounded_off and done % updates == 0

    def _epochs_done(self) -> int:
        """Whole epochs so far, as options count them."""
        return self.progress.epoch - 1 if self.epochs is None else self.epochs.done(self.trainer.updates)

    def _ended_epoch(self, ends_own: bool) -> int | None:
        """Number of the epoch, as options count them, that the update just made has ended; None if it hasn't."""
        if self.epochs is None:
            return self.progress.epoch if ends_own else None
        updates = self.trainer.updates
        return self.epochs.done(updates) if self._every(1) and self.epochs.is_end(updates) else None

    def _due_checkpoints(self, ended: int | None) -> list[str] | None:
        """Names besides best and last; None if no checkpoint is due at all."""
        rules = self.options.checkpoints
        if ended is not None and ended % rules.save_interval == 0:
            return [] if rules.no_epoch_checkpoints else [f"checkpoint{ended}.pt"]
        if self._every(rules.save_interval_updates):
            return [] if ended is not None else [f"checkpoint_{self._epochs_done() + 1}_{self.trainer.updates}.pt"]
        return None

    def _validation_due(self, ended: int | None) -> bool:
        rules = self.options.validation
        return (
            (ended is not None and ended % rules.validate_interval == 0)
            or self._every(rules.validate_interval_updates)
            or self._every(self.options.checkpoints.save_interval_updates)
        )

    def _validate(self, stop: StopSignal) -> list[str]:
        """Validates on every split; returns the names under which the state is one of the best."""
        rules, progress = self.options.validation, self.progress
        metrics = {}
        with self.trainer.averaged_weights():
            for subset in self.subsets:
                metrics[subset] = validate(self.trainer, self.task.validation(subset), stop.is_set)
                if self.scores is not None:
                    metrics[subset] |= self.scores(self.trainer.model, subset, stop.is_set)
        progress.latest = metrics[self.subsets[0]]
        value, maximize = progress.latest[rules.best_checkpoint_metric], rules.maximize_best_checkpoint_metric
        names = [BEST] if progress.judge(value, maximize=maximize) else []
        kept = self.folder.rank_best(progress, rules.best_checkpoint_metric, value, maximize=maximize)
        for subset in self.subsets:
            self.log.validation(subset, metrics[subset], progress, self.trainer.updates)
        self.trainer.observe(progress.latest["loss"])
        return names if kept is None else [*names, kept]

    def _save(self, names: list[str]) -> None:
        self.progress.elapsed_s = time.monotonic() - self._started
        state = capture(self.trainer, self.progress, self.constants)  # by all ranks: each has a part of what is carried
        if self.trainer.ranks.is_first:
            self.folder.save(state, names)
            self.folder.prune(self.progress, self.options.validation.best_checkpoint_metric)

    def _save_together(self) -> None:
        """Saves what was learned before an error that all ranks know of ends the run."""
        self._save([])
        summed(self.trainer.ranks, [0.0], self.trainer.device)  # torchrun ends the others of one that has left

    def _rescue(self) -> None:
        """Saves what was learned before an error of this rank ends the run, unless other ranks have a part of it."""
        ranks, parted = self.trainer.ranks, self.trainer.is_sharded or self.task.carried is not None
        if ranks is ALONE or (not parted and ranks.is_first):
            self._save([])

    def _limit(self, ended: int | None = None) -> str | None:
        """The limit that has been reached, if any.

        Args:
            ended: number of the epoch that the update just made has ended, where that isn't counted yet.
        """
        epochs = self._epochs_done() if ended is None else ended
        limits, schedule, updates = self.options.run, self.trainer.schedule, self.trainer.updates
        patience = self.options.validation.patience
        hours = self._elapsed_s() / 3600
        if 0 < limits.max_update <= updates:
            return f"--max-update {limits.max_update}"
        if 0 < limits.max_epoch <= epochs:
            return f"--max-epoch {limits.max_epoch}"
        if 0 < limits.stop_time_hours <= hours:
            return f"--stop-time-hours {limits.stop_time_hours:g}"
        if 0 < patience <= self.progress.validations_since_best:
            return f"--patience {patience}"
        if updates and schedule(updates + 1) <= min(self.options.schedule.stop_min_lr, schedule(updates)):
            return f"--stop-min-lr {self.options.schedule.stop_min_lr:g}"
        return None
