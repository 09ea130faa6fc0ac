"""A whole training run: check everything, put the parts together, go on from where it was, train."""

from __future__ import annotations

import json
import logging
import signal
from functools import partial
from typing import Any

import torch
from torch import nn

from seqba.checkpoints.model import build_model
from seqba.core import ALONE, Group
from seqba.data.files import atomic_text
from seqba.distributed import Ranks
from seqba.distributed.batch_broadcast import BatchBroadcast
from seqba.distributed.launch import joined_ranks
from seqba.errors import UserError
from seqba.options import plain_options
from seqba.runtime.devices import choose_device
from seqba.runtime.memory import keep_freed_memory
from seqba.tasks import RunnableTask, Task
from seqba.tasks.options import BatchOptions
from seqba.tasks.registry import TASKS
from seqba.tasks.translation import Translation
from seqba.training.announcement import announce
from seqba.training.arms import BaselineEpochs, Grid, check_ranks, derive_grid
from seqba.training.batches import count_updates
from seqba.training.bleu import BleuScorer
from seqba.training.folder import LAST, CheckpointFolder
from seqba.training.log import TrainingLog, quiet_but_first
from seqba.training.log_file import open_run_log
from seqba.training.loop import TrainingLoop
from seqba.training.optimizers import build_optimizer, build_trigger
from seqba.training.options import TrainingOptions
from seqba.training.progress import Progress
from seqba.training.recipe import (
    Recipe,
    check_arm,
    describe_task,
    open_task,
    with_positions_of,
)
from seqba.training.record import RunRecord
from seqba.training.resume import restore
from seqba.training.schedules import build_schedule, count_decay_updates
from seqba.training.sharding import shard_model
from seqba.training.signals import StopSignal
from seqba.training.start import Start, find_start
from seqba.training.trainer import Trainer, UpdateRules

logger = logging.getLogger(__name__)


def train(recipe: Recipe) -> int:
    """Runs a recipe to its end, or until a signal asks to stop.

    Returns:
        Exit status: 0, or 128 + the signal's number.

    Raises:
        UserError: for anything in the recipe or its files that can't work, before long work wherever possible.
    """
    options = recipe.training
    _check_metric(recipe)
    check_arm(recipe)
    grid = derive_grid(options.grid)
    device = choose_device(cpu=options.run.cpu)
    with joined_ranks(device, options.run.distributed_timeout) as ranks:
        check_ranks(ranks, grid, options.run)
        return _train(recipe, grid, device, ranks)


def _train(recipe: Recipe, grid: Grid, device: torch.device, ranks: Group) -> int:
    options = recipe.training
    folder = CheckpointFolder(options.checkpoints)
    if device.type == "cpu":
        keep_freed_memory()
    start = find_start(options.checkpoints)
    baseline, record = _describe(recipe if start is None else with_positions_of(start.state, recipe))
    task = baseline if grid.batch_scale == 1 else baseline.resized(grid.resized(recipe.batches))
    epochs = BaselineEpochs(partial(_baseline_updates, baseline, options.grid.update_freq))
    if ranks.is_first:
        folder.prepare()
    trainer = _build_trainer(recipe, task, record, grid, epochs, device, ranks)
    progress = _begin(trainer, record, start)
    subsets = [name for name in recipe.batches.valid_subset.split(",") if name]
    if not subsets:
        raise UserError("--valid-subset names no split: write it like valid or valid,valid1")
    for subset in subsets:
        task.validation(subset)
    if task.carried is not None:  # every number of micro-batches needs a text that is long enough for it
        for epoch, micro_batches in enumerate(grid.micro_batches_per_epoch, start=1):
            task.epoch(epoch, micro_batches)
    scores = BleuScorer(task, recipe.bleu, ranks) if isinstance(task, Translation) and recipe.bleu.eval_bleu else None
    log_options = quiet_but_first(options.log, ranks)
    run_log = open_run_log(options.checkpoints, ranks, trainer.updates, progress)
    log = TrainingLog(log_options, device, max_update=options.run.max_update, unit=task.unit, run_log=run_log)
    if ranks.is_first:
        _write_run(folder, record, grid, task.batches, trainer)
    broadcast = None
    if options.run.broadcast_batches and isinstance(ranks, Ranks):
        broadcast = BatchBroadcast(ranks, grid.copies, options.run.distributed_timeout)
    loop = TrainingLoop(
        task,
        trainer,
        grid,
        options,
        progress,
        record,
        folder,
        log,
        subsets,
        scores,
        broadcast,
        None if _has_baseline_epochs(grid, options) else epochs,
    )
    try:
        with StopSignal() as stop:
            limit = loop.run(stop)
            return _farewell(limit, stop, trainer, folder)
    finally:
        log.close()


def _baseline_updates(task: Task[Any], update_freq: tuple[int, ...], epoch: int) -> int:
    """Updates of an epoch of the arm baseline, whose task this is."""
    return count_updates(task, epoch, Grid(update_freq, 1).micro_batches(epoch))


def _has_baseline_epochs(grid: Grid, options: TrainingOptions) -> bool:
    """Whether an epoch of this arm has the updates of one of the arm baseline."""
    return grid.batch_scale == 1 and grid.micro_batches_per_epoch == options.grid.update_freq


def _check_metric(recipe: Recipe) -> None:
    """Refuses a deciding metric that this run's validation won't have."""
    metric = recipe.training.validation.best_checkpoint_metric
    if metric not in TASKS[recipe.task].metrics:
        owners = [task for task, spec in TASKS.items() if metric in spec.metrics]
        raise UserError(f"--best-checkpoint-metric {metric} belongs to --task {' or '.join(owners)}; take loss")
    if metric == "bleu" and not recipe.bleu.eval_bleu:
        raise UserError("--best-checkpoint-metric bleu needs --eval-bleu")


def _describe(recipe: Recipe) -> tuple[RunnableTask, RunRecord]:
    """The task, and the identity of the run."""
    task, model = open_task(recipe)
    return task, RunRecord(
        task=describe_task(recipe),
        arch=recipe.arch,
        model=plain_options(model),
        training=recipe.training,
        task_state=task.state(),
    )


def _build_trainer(
    recipe: Recipe,
    task: Task[Any],
    record: RunRecord,
    grid: Grid,
    epochs: BaselineEpochs,
    device: torch.device,
    ranks: Group,
) -> Trainer[Any]:
    options = recipe.training
    torch.manual_seed(options.grid.seed)
    model = _on_device(
        build_model({"arch": record.arch, "options": record.model}, record.task_state), options, device, ranks
    )
    width = recipe.family.width(recipe.family.read(record.model))
    epoch_updates = partial(epochs.length, 1)
    schedule = build_schedule(options.schedule, width=width, epoch_updates=epoch_updates)
    rules = UpdateRules(
        copies=grid.copies,
        plan=options.grid.plan,
        seed=options.grid.seed,
        clip_norm=options.optimisation.clip_norm,
        bf16=options.optimisation.bf16,
        max_skipped_updates=options.optimisation.max_skipped_updates,
        decay_updates=count_decay_updates(options.optimisation, epoch_updates),
    )
    optimizer = build_optimizer(model.parameters(), options.optimisation)
    trigger = build_trigger(options.optimisation)
    return Trainer(task, model, optimizer, schedule, rules, trigger, ranks)


def _on_device(model: nn.Module, options: TrainingOptions, device: torch.device, ranks: Group) -> nn.Module:
    if not options.run.shard_params or not isinstance(ranks, Ranks):
        return model.to(device)
    shard_model(model, ranks, device)
    looped = "; --plan auto is looped then" if options.grid.plan == "auto" else ""
    logger.info("weights, gradients and optimizer state in parts on %d ranks%s", ranks.size, looped)
    return model


def _begin(trainer: Trainer[Any], record: RunRecord, start: Start | None) -> Progress:
    if start is None:
        return Progress()
    progress = restore(start, trainer, record)
    logger.info(
        "going on from %s: update %d, epoch %d, %d updates into it",
        start.path,
        trainer.updates,
        progress.epoch,
        progress.updates_in_epoch,
    )
    return progress


def _write_run(
    folder: CheckpointFolder, record: RunRecord, grid: Grid, batches: BatchOptions, trainer: Trainer[Any]
) -> None:
    """`run.json`: what was resolved, so that a run can be repeated from its folder."""
    parameters = sum(parameter.numel() for parameter in trainer.model.parameters())
    resolved = {
        **record.cfg(),
        "torch_version": str(torch.__version__),
        "device": str(trainer.device),
        "seed": trainer.rules.seed,
        "arm": record.training.grid.arm,
        "micro_batches_per_update": list(grid.micro_batches_per_epoch),
        "micro_batch": {"max_tokens": batches.max_tokens, "batch_size": batches.batch_size},
        "copies": grid.copies,
        "parameters": parameters,
        "task_state": record.task_state,
    }
    lines = announce(
        arch=record.arch,
        parameters=parameters,
        device=trainer.device,
        ranks=trainer.ranks.size,
        micro_batches=grid.micro_batches_per_epoch,
        copies=grid.copies,
        batches=batches,
        options=record.training,
    )
    for line in lines:
        logger.info("%s", line)
    if not folder.options.no_save:
        with atomic_text(folder.path / "run.json") as file:
            json.dump(resolved, file, indent=2)
            file.write("\n")


def _farewell(limit: str | None, stop: StopSignal, trainer: Trainer[Any], folder: CheckpointFolder) -> int:
    """The last line, when rank 0 has written everything: before that, no rank may leave or be ended by a signal."""
    name = stop.received.name if stop.received is not None else None
    heard = {rank: name for rank, name in enumerate(trainer.ranks.gather(name)) if name is not None}
    if limit is not None:
        logger.info("done after update %d: %s", trainer.updates, limit)
        return 0
    received = signal.Signals[next(iter(heard.values()))]
    where = "" if trainer.ranks is ALONE else f" to rank {', '.join(map(str, heard))}"
    kept = "nothing kept (--no-save)" if folder.options.no_save else f"{folder.path / LAST} written"
    logger.info(
        "stopped by %s%s after update %d, %s; the same command goes on", received.name, where, trainer.updates, kept
    )
    return 128 + received
