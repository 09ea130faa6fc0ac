"""A run → a checkpoint's state and back, and where a command has to begin."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from seqba.checkpoints.file import read_checkpoint
from seqba.checkpoints.model import load_weights
from seqba.errors import UserError
from seqba.models.options import is_noise
from seqba.options import flag_of
from seqba.training.folder import LAST
from seqba.training.options import CheckpointOptions
from seqba.training.progress import Progress
from seqba.training.sharding import whole_averages_of, whole_weights_of
from seqba.training.trainer import Trainer

logger = logging.getLogger(__name__)

UPDATE_DEFINING = {
    "grid": ("arm", "seed", "copies", "update_freq"),
    "batches": ("train_subset", "max_tokens", "batch_size", "required_batch_size_multiple"),
    "blocks": ("tokens_per_sample", "sample_break_mode", "add_bos_token"),
    "streams": ("bptt",),
    "images": ("hold_out",),
}
"""Options that say what update u is made of: going on with others would be another run under the same name.

By the names that groups have in a checkpoint's cfg; a run has only the groups of its task.
"""

WEIGHT_MOVING = {
    "grid": ("plan",),
    "criterion": ("criterion", "label_smoothing", "sentence_avg"),
    "optimisation": (
        "optimizer",
        "adam_betas",
        "adam_eps",
        "momentum",
        "nonmono",
        "weight_decay",
        "weight_decay_on",
        "weight_decay_until",
        "weight_decay_unit",
        "clip_norm",
        "bf16",
    ),
    "streams": ("activation_regularization", "temporal_activation_regularization"),
    "images": (
        "augmentation",
        "crop_padding",
        "cutout",
        "colour_jitter",
        "decode_size",
        "mixup",
        "manifold_mixup",
        "mixup_lambda",
    ),
    "schedule": (
        "lr_scheduler",
        "lr",
        "warmup_updates",
        "warmup_init_lr",
        "lr_drops",
        "lr_drop_unit",
        "lr_shrink",
    ),
}
"""Options that may change on the way, but then the weights are no longer those of one command."""


@dataclass(frozen=True)
class Resets:
    """What of a restored checkpoint is left behind."""

    optimizer: bool = False
    lr_scheduler: bool = False
    meters: bool = False
    dataloader: bool = False

    @property
    def position(self) -> bool:
        """Whether nothing is taken of where the run was: its updates, its counts, its place in the data."""
        return self.lr_scheduler and self.meters and self.dataloader


@dataclass(frozen=True)
class Start:
    """A checkpoint to begin with.

    Attributes:
        path: its file.
        state: its content.
        resets: what is not taken from it.
        is_named: whether the command names it; it was found in the save-dir otherwise.
    """

    path: Path
    state: dict[str, Any]
    resets: Resets
    is_named: bool = False

    @property
    def way_out(self) -> str:
        """What to do where this run can't go on from it."""
        return "take another checkpoint" if self.is_named else "take another --save-dir"


def origin(options: CheckpointOptions) -> dict[str, Any]:
    """What a command says about its beginning; a checkpoint keeps it, to know the same command again."""
    return {
        "restore_file": options.restore_file,
        "finetune_from_model": options.finetune_from_model,
        **{f"reset_{name}": value for name, value in asdict(_resets(options)).items()},
    }


def find_start(options: CheckpointOptions) -> Start | None:
    """Where this command begins; None for new weights.

    The same command run again goes on from `checkpoint_last.pt` of its save-dir and resets nothing a second time, even
    where it says `--restore-file` or `--reset-*`: those describe how the run began, and it has begun.

    Raises:
        UserError: for a named checkpoint that isn't there or can't be read, or a fine-tuning into another run's folder.
    """
    last = Path(options.save_dir) / LAST
    names_default = options.restore_file == LAST
    if last.exists():
        state = read_checkpoint(last)
        if state["extra_state"].get("origin") == origin(options):
            return Start(last, state, Resets())
        if options.finetune_from_model is not None:
            raise UserError(
                f"{options.save_dir} already holds a run that did not begin with --finetune-from-model "
                f"{options.finetune_from_model}: choose another --save-dir, or leave it out to go on with that run"
            )
        if names_default:
            return Start(last, state, _resets(options))
    if options.finetune_from_model is not None:
        named = options.finetune_from_model
        return Start(Path(named), read_checkpoint(named), Resets(True, True, True, True), is_named=True)
    if names_default:
        return None
    return Start(Path(options.restore_file), read_checkpoint(options.restore_file), _resets(options), is_named=True)


def capture(trainer: Trainer[Any], progress: Progress, constants: Mapping[str, Any]) -> dict[str, Any]:
    """A checkpoint's state: `constants` (cfg, task_state, origin), the weights, the optimizer, the position.

    All ranks must call it, each having a part; the first one's is whole.
    """
    extra_state = {**progress.extra_state(), "trainer": trainer.state_dict(), "origin": constants["origin"]}
    history = {
        "criterion_name": constants["cfg"]["task"]["criterion"]["criterion"],
        "optimizer_name": constants["cfg"]["training"]["optimisation"]["optimizer"],
        "lr_scheduler_state": {},
        "num_updates": trainer.updates,
    }
    with trainer.averaged_weights() as averaged:
        weights = _weights(trainer)
    return {
        "args": None,
        "cfg": constants["cfg"],
        "model": weights,
        "raw_model": _weights(trainer) if averaged else None,
        "optimizer_history": [history],
        "task_state": constants["task_state"],
        "extra_state": extra_state,
        "last_optimizer_state": _averages(trainer),
    }


def _weights(trainer: Trainer[Any]) -> dict[str, Any]:
    if not trainer.is_sharded:
        return trainer.model.state_dict()
    return whole_weights_of(trainer.model, keep=trainer.ranks.is_first)


def _averages(trainer: Trainer[Any]) -> dict[str, Any]:
    if not trainer.is_sharded:
        return trainer.optimizer.state_dict()
    return whole_averages_of(trainer.optimizer, keep=trainer.ranks.is_first)


def restore(start: Start, trainer: Trainer[Any], constants: Mapping[str, Any]) -> Progress:
    """Puts a checkpoint into a trainer and returns the position to go on from.

    Raises:
        UserError: if the checkpoint is of another model, dictionary or grid.
    """
    extra, resets = start.state["extra_state"], start.resets
    try:
        _check_same_run(start, constants)
        load_weights(trainer.model, start.state, start.path)
        keeps_optimizer = not resets.optimizer and _same_optimizer(start, constants)
        _check_parts(start, keeps_optimizer=keeps_optimizer)
        if keeps_optimizer and start.state.get("raw_model") is not None:
            # The averages are in the optimizer's state.
            load_weights(trainer.model, {"model": start.state["raw_model"]}, start.path)
        if resets.position:
            progress = Progress()
        else:
            plans = [cfg["training"]["grid"]["plan"] for cfg in (start.state["cfg"], constants["cfg"])]
            progress = Progress.from_extra_state(extra)
            trainer.load_state_dict(
                extra["trainer"], keep_plan=plans[0] == plans[1], keep_carried=not resets.dataloader
            )
        if keeps_optimizer:
            trigger = extra.get("trainer", {}).get("trigger")
            trainer.load_optimizer(start.state["last_optimizer_state"]["state"], trigger)
    except UserError:
        raise
    except Exception as error:  # a damaged file may hold anything
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"checkpoint {start.path} can't be resumed from, a part of it is missing or damaged: {reason}"
        ) from None
    if resets.lr_scheduler:
        trainer.updates = 0
        progress.rounded_off = 0
    if resets.meters:
        progress.reset_meters()
        trainer.skipped = trainer.skipped_in_a_row = 0
    if resets.dataloader:
        progress.reset_position()
    return progress


def _check_parts(start: Start, *, keeps_optimizer: bool) -> None:
    """Refuses to go on from parts that a checkpoint was written without, and names what does without them."""
    anew = f"begin a new run from its weights with --finetune-from-model {start.path}"
    if not start.resets.position and not {"progress", "trainer"} <= start.state["extra_state"].keys():
        raise UserError(f"checkpoint {start.path} has weights, but doesn't say where its run was: {anew}")
    if keeps_optimizer and start.state.get("last_optimizer_state") is None:
        raise UserError(
            f"checkpoint {start.path} has no optimizer state, as an average of checkpoints has none: add "
            f"--reset-optimizer to go on without it, or {anew}"
        )


def _resets(options: CheckpointOptions) -> Resets:
    return Resets(options.reset_optimizer, options.reset_lr_scheduler, options.reset_meters, options.reset_dataloader)


def _check_same_run(start: Start, constants: Mapping[str, Any]) -> None:
    """Refuses another dictionary, model or grid, and says which other options now move the weights differently."""
    was, now = start.state["task_state"], constants["task_state"]
    different = [name for name in now if was.get(name) != now[name]]
    if "task" in different:
        raise UserError(
            f"checkpoint {start.path} is of --task {was.get('task')}, and this run of --task {now['task']}: "
            f"{start.way_out}"
        )
    if different:
        raise UserError(
            f"checkpoint {start.path} was trained on other data ({', '.join(different)} differ): give the data that it "
            f"was trained on, as it was given then, or {start.way_out}"
        )
    arch, asked = (cfg["model"]["arch"] for cfg in (start.state["cfg"], constants["cfg"]))
    before, after = (_groups(cfg) for cfg in (start.state["cfg"], constants["cfg"]))
    if before["model"].keys() - after["model"].keys():  # older versions had fewer options
        _refuse(start, [f"--arch {asked} (it had {arch})"], start.way_out)
    sizes = {"model": [name for name in after["model"] if not is_noise(name)]}
    _refuse(start, _changes(before, after, sizes), start.way_out)
    changes = _changes(before, after, UPDATE_DEFINING)
    if not start.resets.dataloader:
        _refuse(start, changes, f"start over with --reset-dataloader, or {start.way_out}")
        _check_key_version(start, constants["cfg"]["key_version"])
    if start.resets.optimizer and start.resets.dataloader:
        return  # only the weights are taken over: what trained them doesn't matter
    noise = {"model": [name for name in after["model"] if is_noise(name)]}
    changes += _changes(before, after, {**WEIGHT_MOVING, **noise})
    if changes:
        logger.warning("going on from %s with %s", start.path, ", ".join(changes))


def _check_key_version(start: Start, now: int) -> None:
    """Refuses noise that is another function of the same key: the masks would change in the middle of a run."""
    cfg = start.state["cfg"]
    if cfg["key_version"] != now:
        raise UserError(
            f"{start.path} can't go on here: its noise is of key version {cfg['key_version']}, and this version of "
            f"seqba draws that of {now}: go on with seqba {cfg.get('version', 'of then')}, accept other masks and "
            f"start over with --reset-dataloader, or {start.way_out}"
        )


def _same_optimizer(start: Start, constants: Mapping[str, Any]) -> bool:
    """Whether the checkpoint's optimizer is this command's; another one's averages mean nothing to it.

    Averages are kept in the order in which the optimizer groups the weights.
    """
    names = ("optimizer", "weight_decay_on")
    given, now = (cfg["training"]["optimisation"] for cfg in (start.state["cfg"], constants["cfg"]))
    was = {**now, "weight_decay_on": "all", **given}  # older versions decayed everything
    different = [f"{flag_of(name)} {was[name]}" for name in names if was[name] != now[name]]
    if different:
        logger.warning(
            "%s had %s: its averages are left behind, as with --reset-optimizer", start.path, " ".join(different)
        )
    return not different


def _refuse(start: Start, changes: list[str], otherwise: str) -> None:
    if changes:
        raise UserError(f"{start.path} can't go on with {', '.join(changes)}: keep what it had, or {otherwise}")


def _groups(cfg: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The option groups of a cfg by name, wherever they stand in it."""
    return {**cfg["task"], **cfg["training"], "model": cfg["model"]["options"]}


def _changes(
    before: Mapping[str, Mapping[str, Any]], after: Mapping[str, Mapping[str, Any]], names: Mapping[str, Sequence[str]]
) -> list[str]:
    """`--seed 2 (it had 1)` for every named option that differs."""
    return [
        f"{flag_of(name)} {after[group][name]} (it had {before[group][name]})"
        for group in names
        if group in after and group in before
        for name in names[group]
        if name in before[group] and after[group][name] != before[group][name]  # older versions had fewer options
    ]
