"""A training run, from its configuration to its exit status."""

from __future__ import annotations

import logging
import signal
import warnings
from contextlib import closing
from typing import TextIO

import torch

from seqba.core import ALONE
from seqba.data.files import atomic_text, write_json
from seqba.distributed.launch import joined_ranks
from seqba.models.attention import Attention
from seqba.runtime.devices import prepare_device
from seqba.training.announcement import announce, describe_arithmetic
from seqba.training.arms import check_ranks, derive_grid
from seqba.training.assembly import assemble
from seqba.training.config import RunConfig
from seqba.training.config_record import CONFIG_FILE, config_text
from seqba.training.folder import LAST, held_folder
from seqba.training.loop import STOPPED, TrainingLoop
from seqba.training.outputs import check_outputs
from seqba.training.rules import validate_config
from seqba.training.signals import StopSignal
from seqba.training.start import find_start
from seqba.training.workload import Workload, open_workload

logger = logging.getLogger(__name__)


def train(config: RunConfig) -> int:
    """Trains to the end of a run, or until a signal asks to stop.

    Args:
        config: the options of the run.

    Returns:
        Exit status: 0, or 128 + the signal's number.

    Raises:
        UserError: for options or files that can't work, before long work wherever possible.
    """
    with warnings.catch_warnings():
        warnings.showwarning = _log_warning
        return _train(config)


def _log_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Shows a warning as a line of the log."""
    logger.warning("warning: %s", message)


def _train(config: RunConfig) -> int:
    validate_config(config)
    options = config.training
    device = prepare_device(cpu=options.run.cpu)
    with joined_ranks(device, options.run.distributed_timeout) as ranks:
        check_ranks(ranks, derive_grid(options.grid), options.run, measure_every=options.log.measure_every)
        check_outputs(options.checkpoints, options.log, ranks)
        with held_folder(options.checkpoints, ranks):
            start = find_start(options.checkpoints)
            workload = open_workload(config, start)
            loop = assemble(workload, start, device, ranks)
            with closing(loop.log), StopSignal() as stop:
                if ranks.is_first:
                    describe_run(config, workload, loop)
                ending = loop.run(stop)
                return log_exit(ending, stop, loop)


def describe_run(config: RunConfig, workload: Workload, loop: TrainingLoop) -> None:
    """Logs the first lines of a run, and writes what was resolved beside its checkpoints."""
    record, trainer = workload.record, loop.trainer
    parameters = sum(parameter.numel() for parameter in trainer.model.parameters())
    arithmetic = _arithmetic(loop)
    lines = announce(
        arch=record.arch,
        parameters=parameters,
        device=trainer.device,
        ranks=trainer.ranks.size,
        grid=loop.grid,
        batches=workload.batches,
        options=record.training,
    )
    for line in (*lines, *([arithmetic] if arithmetic else [])):
        logger.info("%s", line)
    if not loop.folder.options.no_save:
        _write_resolved(workload, loop, parameters=parameters, arithmetic=arithmetic)
        with atomic_text(loop.folder.path / CONFIG_FILE) as file:
            file.write(config_text(config, record.arch, record.model))


def _arithmetic(loop: TrainingLoop) -> str | None:
    """How the run computes on a CPU; None on other devices."""
    trainer = loop.trainer
    if trainer.device.type != "cpu":
        return None
    dropouts = [module.dropout.p for module in trainer.model.modules() if isinstance(module, Attention)]
    return describe_arithmetic(
        trainer.rules.autocast, attention_dropout=max(dropouts, default=None), compiled=loop.options.run.compile
    )


def _write_resolved(workload: Workload, loop: TrainingLoop, *, parameters: int, arithmetic: str | None) -> None:
    """Writes `run.json`: options as they were resolved, the grid, and what the figures of a run depend on besides."""
    record, batches, grid = workload.record, workload.batches, loop.grid
    resolved = {
        **record.cfg(),
        "torch_version": str(torch.__version__),
        "device": str(loop.trainer.device),
        "arithmetic": arithmetic,
        "seed": record.training.grid.seed,
        "arm": record.training.grid.arm,
        "micro_batches_per_update": list(grid.micro_batches_per_epoch),
        "micro_batch": {"max_tokens": batches.max_tokens, "batch_size": batches.batch_size},
        "copies": grid.copies.most,
        "copy_schedule": None if grid.copies.is_constant else str(grid.copies),
        "parameters": parameters,
        "task_state": record.task_state,
    }
    write_json(loop.folder.path / "run.json", resolved)


def log_exit(ending: str, stop: StopSignal, loop: TrainingLoop) -> int:
    """Logs the last lines of a run, once rank 0 has saved everything: no rank may leave or be ended before that.

    Args:
        ending: why training ended, see `TrainingLoop.run`.
        stop: the signal of this rank.
        loop: the run.

    Returns:
        Exit status of the process: 0, or 128 + the number of the signal that came to any rank.
    """
    trainer, folder = loop.trainer, loop.folder
    name = stop.received.name if stop.received is not None else None
    heard = {rank: name for rank, name in enumerate(trainer.ranks.gather(name)) if name is not None}
    loop.log.write_rest()
    if ending != STOPPED:
        logger.info("done after update %d: %s", trainer.updates, ending)
        return 0
    received = signal.Signals[next(iter(heard.values()))]
    where = "" if trainer.ranks is ALONE else f" to rank {', '.join(map(str, heard))}"
    kept = "nothing kept (--no-save)" if folder.options.no_save else f"{folder.path / LAST} written"
    logger.info(
        "stopped by %s%s after update %d, %s; the same command goes on", received.name, where, trainer.updates, kept
    )
    return 128 + received
