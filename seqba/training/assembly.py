"""Composition of a run: everything that the training loop needs, put together in one place."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any, cast

import torch
from torch import nn

from seqba.core import ALONE, Group
from seqba.distributed import Ranks
from seqba.distributed.batch_broadcast import BatchBroadcast
from seqba.models.forks import Forking
from seqba.models.graphs import check_compiled, compile_layers
from seqba.models.layers import recompute_layers
from seqba.tasks import MicroBatches
from seqba.training.arms import BaselineEpochs, GridShape, derive_grid
from seqba.training.averages import build_average
from seqba.training.batches import check_epochs, count_updates
from seqba.training.folder import CheckpointFolder
from seqba.training.log import TrainingLog, log_options_of_rank
from seqba.training.log_file import open_run_log
from seqba.training.loop import TrainingLoop
from seqba.training.optimisation import Optimisation
from seqba.training.optimizers import build_optimizer, build_trigger
from seqba.training.precision import build_scaler, choose_precision
from seqba.training.progress import Progress
from seqba.training.regime import build_schedule, count_decay_updates, schedule_drop_path
from seqba.training.reports import open_trackers
from seqba.training.resume import restore
from seqba.training.sharding import shard_model
from seqba.training.start import Start
from seqba.training.trainer import Trainer, UpdateRules
from seqba.training.workload import Workload

logger = logging.getLogger(__name__)


def assemble(workload: Workload, start: Start | None, device: torch.device, ranks: Group = ALONE) -> TrainingLoop:
    """Puts a run together: model, optimizer, schedule, checkpoint folder and log, ready for `TrainingLoop.run`.

    Args:
        workload: what is learned, and the options of the run.
        start: the checkpoint to begin with; None for new weights.
        device: that this process computes on.
        ranks: the processes of the run.

    Raises:
        UserError: for a folder that can't be written to, a checkpoint of another run, or a split that can't be read.
    """
    options, task = workload.record.training, workload.task
    grid = derive_grid(options.grid)
    folder = CheckpointFolder(options.checkpoints)
    if ranks.is_first:
        folder.prepare()
    epochs = _baseline_epochs(workload)
    trainer = _build_trainer(workload, grid, epochs, device, ranks)
    progress = resume_or_start(trainer, workload, start)
    splits = _open_splits(workload)
    check_epochs(task, grid.micro_batches_per_epoch)
    extra_metrics = None if workload.extra_metrics is None else workload.extra_metrics(ranks)
    if options.run.compile:  # takes a minute: after what may be a user's mistake, and before copies begin elsewhere
        check_compiled(trainer.model, trainer.rules.autocast)
    if grid.fork is not None:
        cast(Forking, trainer.model).fork_at(grid.fork)
    log = _open_log(workload, trainer, progress)
    broadcast = None
    if options.run.broadcast_batches and isinstance(ranks, Ranks):
        broadcast = BatchBroadcast(ranks, options.run.distributed_timeout)
    return TrainingLoop(
        trainer=trainer,
        grid=grid,
        record=workload.record,
        progress=progress,
        splits=splits,
        folder=folder,
        log=log,
        extra_metrics=extra_metrics,
        broadcast=broadcast,
        epochs=None if grid.has_epochs_of(options.grid) else epochs,
    )


def _baseline_epochs(workload: Workload) -> BaselineEpochs:
    """Epochs of the arm baseline, in updates."""
    grid = GridShape(workload.record.training.grid.update_freq)
    return BaselineEpochs(lambda epoch: count_updates(workload.baseline, epoch, grid.micro_batches(epoch)))


def _build_trainer(
    workload: Workload, grid: GridShape, epochs: BaselineEpochs, device: torch.device, ranks: Group
) -> Trainer[Any]:
    options = workload.record.training
    precision = choose_precision(options.optimisation, device)
    model = _build_model(workload, device, ranks)
    epoch_updates = partial(epochs.length, 1)
    schedule_drop_path(model, options, epoch_updates=epoch_updates)
    optimisation = Optimisation(
        model,
        build_optimizer(model.parameters(), options.optimisation),
        build_schedule(
            options.schedule,
            width=workload.width,
            epoch_updates=epoch_updates,
            max_update=options.run.max_update,
            copies=options.grid.copy_schedule.most,
        ),
        clip_norm=options.optimisation.clip_norm,
        decay_updates=count_decay_updates(options.optimisation, epoch_updates),
        scaler=build_scaler(options.optimisation, precision, device),
        trigger=build_trigger(options.optimisation),
        average=build_average(model, options.optimisation),
    )
    rules = UpdateRules.of(options, grid, precision, compared=workload.compares_copies)
    return Trainer(workload.task, optimisation, rules, ranks)


def _build_model(workload: Workload, device: torch.device, ranks: Group) -> nn.Module:
    """Model with new weights on the device, in parts on several ranks where the options say so."""
    options = workload.record.training
    torch.manual_seed(options.grid.seed)
    model = workload.build_model()
    if options.run.compile:
        compile_layers(model)
    if options.run.checkpoint_activations:
        recompute_layers(model)
    if not options.run.shard_params or not isinstance(ranks, Ranks):
        return model.to(device)
    shard_model(model, ranks, device)
    looped = "; --plan auto is looped then" if options.grid.plan == "auto" else ""
    logger.info("weights, gradients and optimizer state in parts on %d ranks%s", ranks.size, looped)
    return model


def resume_or_start(trainer: Trainer[Any], workload: Workload, start: Start | None) -> Progress:
    """Puts the checkpoint that a run goes on from into its trainer.

    Returns:
        The position to go on from; that of a new run where there is no checkpoint.
    """
    if start is None:
        return Progress()
    progress = restore(start, trainer, workload.record)
    logger.info(
        "going on from %s: update %d, epoch %d, %d updates into it",
        start.path,
        trainer.updates,
        progress.epoch,
        progress.updates_in_epoch,
    )
    return progress


def _open_splits(workload: Workload) -> dict[str, MicroBatches[Any]]:
    """Validation splits by their names, each opened here, so that a missing one is reported before any update.

    None where nothing is validated.
    """
    if workload.record.training.validation.disable_validation:
        return {}
    return {name: workload.task.validation(name) for name in workload.batches.valid_subset.split(",") if name}


def _open_log(workload: Workload, trainer: Trainer[Any], progress: Progress) -> TrainingLog:
    """Log of this process: on the first rank with the file in the save-dir and the trackers, where there are any."""
    options, ranks = workload.record.training, trainer.ranks
    return TrainingLog(
        log_options_of_rank(options.log, ranks),
        trainer.device,
        max_update=options.run.max_update,
        unit=workload.task.unit,
        run_log=open_run_log(options.checkpoints, ranks, trainer.updates, progress),
        trackers=open_trackers(workload.record, ranks, resumed=trainer.updates > 0),
        best_metric=options.validation.best_checkpoint_metric,
    )
