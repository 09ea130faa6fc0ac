"""Conversion of a run to a checkpoint's state, and back."""

from __future__ import annotations

from typing import Any

from seqba.checkpoints.model import load_weights
from seqba.errors import UserError
from seqba.training.progress import Progress
from seqba.training.record import Identity, RunRecord
from seqba.training.same_run import check_same_run, has_same_measure, has_same_optimizer
from seqba.training.sharding import whole_model_state, whole_optimizer_state
from seqba.training.start import Start, command_origin
from seqba.training.trainer import Trainer


def capture(trainer: Trainer[Any], progress: Progress, record: RunRecord) -> dict[str, Any]:
    """State of a run for a checkpoint: its record, the weights, the optimizer, the position.

    All ranks must call it, each having a part; the first one's is whole.
    """
    extra_state = {
        **progress.extra_state(),
        "trainer": trainer.state_dict(),
        "origin": command_origin(record.training.checkpoints),
    }
    history = {
        "criterion_name": record.criterion,
        "optimizer_name": record.training.optimisation.optimizer,
        "lr_scheduler_state": {},
        "num_updates": trainer.updates,
    }
    with trainer.optimisation.averaged_weights() as averaged:
        weights = _weights(trainer)
    return {
        "args": None,
        "cfg": record.cfg(),
        "model": weights,
        "raw_model": _weights(trainer) if averaged else None,
        "optimizer_history": [history],
        "task_state": record.task_state,
        "extra_state": extra_state,
        "last_optimizer_state": _optimizer_state(trainer),
    }


def _weights(trainer: Trainer[Any]) -> dict[str, Any]:
    if not trainer.optimisation.is_sharded:
        return trainer.model.state_dict()
    return whole_model_state(trainer.model, keep=trainer.ranks.is_first)


def _optimizer_state(trainer: Trainer[Any]) -> dict[str, Any]:
    if not trainer.optimisation.is_sharded:
        return trainer.optimisation.optimizer.state_dict()
    return whole_optimizer_state(trainer.optimisation.optimizer, keep=trainer.ranks.is_first)


def restore(start: Start, trainer: Trainer[Any], record: RunRecord) -> Progress:
    """Restores a trainer from a checkpoint; returns the position to go on from.

    Raises:
        UserError: if the checkpoint is of another model, dictionary or grid.
    """
    extra, resets = start.state["extra_state"], start.resets
    try:
        before, after = Identity.of_file(start.state["cfg"], start.state["task_state"]), Identity.of(record)
        check_same_run(start, before, after)
        _check_has_position(start)
        keeps_optimizer = not resets.optimizer and has_same_optimizer(start, before, after)
        if keeps_optimizer:
            _check_has_optimizer(start)
        _load_all_weights(start, trainer, raw=keeps_optimizer)
        if resets.position:
            progress = Progress()
        else:
            same_plan = before.groups["grid"]["plan"] == after.groups["grid"]["plan"]
            progress = Progress.from_extra_state(extra)
            if not has_same_measure(start, before, after):
                progress.forget_best()
            trainer.load_state_dict(extra["trainer"], keep_plan=same_plan, keep_carried=not resets.dataloader)
        if keeps_optimizer:
            trigger = extra.get("trainer", {}).get("trigger")
            trainer.optimisation.load_optimizer(start.state["last_optimizer_state"]["state"], trigger)
    except UserError:
        raise
    except Exception as error:  # a damaged file may hold anything
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"checkpoint {start.path} can't be resumed from, a part of it is missing or damaged: {reason}"
        ) from None
    if resets.lr_scheduler:
        trainer.updates = trainer.tried = 0
        progress.last_finished_update = 0
    if resets.meters:
        progress.reset_meters()
        trainer.skipped = trainer.skipped_in_a_row = 0
    if resets.dataloader:
        progress.reset_position()
    return progress


def _load_all_weights(start: Start, trainer: Trainer[Any], *, raw: bool) -> None:
    """Loads a checkpoint's weights, which are averages where it has any, and then the raw ones, where `raw`."""
    load_weights(trainer.model, start.state, start.path)
    average = trainer.optimisation.average
    if average is not None:
        average.begin()
    if raw and start.state.get("raw_model") is not None:
        load_weights(trainer.model, {"model": start.state["raw_model"]}, start.path)


def _check_has_position(start: Start) -> None:
    """Refuses to go on from weights alone (those of another program, say), and names what begins with them."""
    if not start.resets.position and not {"progress", "trainer"} <= start.state["extra_state"].keys():
        raise UserError(f"checkpoint {start.path} has weights, but doesn't say where its run was: {_begin_anew(start)}")


def _check_has_optimizer(start: Start) -> None:
    """Refuses to go on without an optimizer's state, and names what does without it."""
    if start.state.get("last_optimizer_state") is None:
        raise UserError(
            f"checkpoint {start.path} has no optimizer state, as an average of checkpoints has none: add "
            f"--reset-optimizer to go on without it, or {_begin_anew(start)}"
        )


def _begin_anew(start: Start) -> str:
    return f"begin a new run from its weights with --finetune-from-model {start.path}"
