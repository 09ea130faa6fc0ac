"""Comparison of two commands that shall be one run: options and data that must not change, and those that may."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from os.path import abspath, normpath
from typing import Any

from seqba.data.names import split_paths
from seqba.errors import UserError
from seqba.models.options import is_noise
from seqba.options import flag_of
from seqba.tasks.registry import VARIANTS
from seqba.training.record import Identity
from seqba.training.start import Start

logger = logging.getLogger(__name__)

UPDATE_DEFINING = {
    "grid": ("arm", "seed", "copies", "update_freq", "fork"),
    "batches": ("train_subset", "weights", "max_tokens", "batch_size", "required_batch_size_multiple"),
    **{variant.group: variant.update_defining for variant in VARIANTS.values()},
}
"""Options that say what update u is made of: going on with others would be another run under the same name.

By the names that groups have in a checkpoint's cfg; a run has only the groups of its task.
"""

WEIGHT_MOVING = {
    "grid": ("plan",),
    "criterion": ("criterion", "label_smoothing", "sentence_avg", "consistency", "rdrop_alpha"),
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
        "fp16",
        "fp16_init_scale",
        "fp16_scale_window",
        "store_ema",
        "ema_decay",
        "ema_start_update",
        "ema_update_freq",
    ),
    "log": ("measure_every",),  # such updates are looped
    **{variant.group: variant.weight_moving for variant in VARIANTS.values()},
    "schedule": (
        "lr_scheduler",
        "lr",
        "lr_factor",
        "warmup_updates",
        "warmup_init_lr",
        "lr_drops",
        "lr_drop_unit",
        "lr_shrink",
        "min_lr",
        "lr_period_updates",
        "t_mult",
        "total_num_update",
        "end_learning_rate",
        "power",
        "drop_path_epochs",
    ),
}
"""Options that may change on the way, but then the weights are no longer those of one command."""


MEASURING: Mapping[str, Mapping[str, Sequence[str]]] = {
    "loss": {"criterion": ("label_smoothing", "sentence_avg")},
    "nll": {"criterion": ("sentence_avg",)},
    "bleu": {
        "bleu": (
            "eval_bleu_args",
            "eval_bleu_remove_bpe",
            "eval_bleu_detok",
            "eval_bleu_detok_args",
            "eval_tokenized_bleu",
        )
    },
}
"""Metric that decides what is best → further options that say how it is measured, by their groups."""

BEFORE_THE_OPTION: Mapping[str, Mapping[str, Any]] = {
    "criterion": {"consistency": 0.0, "rdrop_alpha": 0.0},
    "grid": {"fork": None},
    "batches": {"weights": []},
    "optimisation": {"store_ema": False},
    "run": {"compile": False},
    "schedule": {"lr_factor": 1.0},
    "translation": {"subword_sampling": 0.0},
}
"""Values of options that versions without them had, where a run that goes on with another value is another run."""


def check_same_run(start: Start, before: Identity, after: Identity) -> None:
    """Refuses another dictionary, model or grid, and says which other options now move the weights differently.

    Args:
        start: where the run begins.
        before: of the checkpoint.
        after: of this command.

    Raises:
        UserError: with the options or the data that differ, and the way out.
    """
    was, now = before.task_state, after.task_state
    # None stands for what a checkpoint of another program doesn't say.
    different = [name for name in now if name not in was or was[name] not in (None, now[name])]
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
    options = after.groups["model"]
    if before.groups["model"].keys() - options.keys():  # older versions had fewer options
        _refuse(start, [f"--arch {after.arch} (it had {before.arch})"], start.way_out)
    sizes = {"model": [name for name in options if not is_noise(name)]}
    _refuse(start, _changes(before, after, sizes), start.way_out)
    changes = _changes(before, after, UPDATE_DEFINING)
    if not start.resets.dataloader:
        _refuse(start, changes, f"start over with --reset-dataloader, or {start.way_out}")
        _check_key_version(start, before, after)
    if start.resets.optimizer and start.resets.dataloader:
        return  # only the weights are taken over: what trained them doesn't matter
    noise = {"model": [name for name in options if is_noise(name)]}
    changes += _change_of_data(before, after)
    changes += _changes(before, after, {**WEIGHT_MOVING, "run": ["compile", *_moving_limits(after)], **noise})
    if changes:
        logger.warning("going on from %s with %s", start.path, ", ".join(changes))


def _moving_limits(identity: Identity) -> list[str]:
    """Limits of a run that its schedules end at, where no other option says where they end."""
    schedule, model = identity.groups["schedule"], identity.groups["model"]
    ends = {"cosine": "lr_period_updates", "polynomial_decay": "total_num_update"}.get(schedule["lr_scheduler"])
    limits = ["max_update"] if ends is not None and schedule[ends] is None else []
    return [*limits, "max_epoch"] if model.get("drop_path") and schedule["drop_path_epochs"] is None else limits


def _change_of_data(before: Identity, after: Identity) -> list[str]:
    """The data of training where they aren't the checkpoint's: of the same dictionaries, by now, but of other text.

    A folder that was moved is the same, and one that was made anew in its place isn't. In the files of versions that
    kept no fingerprints only the folders' names tell.
    """
    was, now = before.data, after.data
    is_named_alike = (
        was is None or now is None or any(_folders(was, form) == _folders(now, form) for form in (normpath, abspath))
    )
    is_same = _has_same_data(before, after, after.groups["batches"]["train_subset"])
    if is_same or (is_same is None and is_named_alike):
        return []
    return [f"other training data in {now} than it had" if is_named_alike else f"{now} as data (it had {was})"]


def _has_same_data(before: Identity, after: Identity, split: str) -> bool | None:
    """Whether a split has the data that it had; None where the checkpoint doesn't say."""
    was = before.fingerprints.get(split)
    return None if was is None else was == after.fingerprints.get(split)


def _folders(data: str, form: Callable[[str], str]) -> list[str]:
    return [form(folder) for folder in split_paths(data)]


def _check_key_version(start: Start, before: Identity, after: Identity) -> None:
    """Refuses another version of the noise's key: the masks would change in the middle of a run."""
    if before.key_version != after.key_version:
        raise UserError(
            f"{start.path} can't go on here: its noise is of key version {before.key_version}, and this version of "
            f"seqba draws that of {after.key_version}: go on with seqba {before.version}, accept other masks and "
            f"start over with --reset-dataloader, or {start.way_out}"
        )


def has_same_optimizer(start: Start, before: Identity, after: Identity) -> bool:
    """Whether the checkpoint's optimizer is this command's; another one's averages mean nothing to it.

    Averages are kept in the order in which the optimizer groups the weights.
    """
    names = ("optimizer", "weight_decay_on")
    given, now = (identity.groups["optimisation"] for identity in (before, after))
    was = {**now, "weight_decay_on": "all", **given}  # older versions decayed everything
    different = [f"{flag_of(name)} {was[name]}" for name in names if was[name] != now[name]]
    if different:
        logger.warning(
            "%s had %s: its averages are left behind, as with --reset-optimizer", start.path, " ".join(different)
        )
    return not different


def has_same_measure(start: Start, before: Identity, after: Identity) -> bool:
    """Whether a checkpoint's best value was measured as this command measures; a warning says so where it wasn't.

    A loss is no rival of a BLEU, nor of the loss on another split or with other label smoothing.
    """
    was, now = _measure(before), _measure(after)
    changes = [
        f"{flag_of(name)} {now[name]} (it had {was[name]})"
        for name in now
        if name in was and was[name] != now[name]  # older versions had fewer options
    ]
    deciding_split = now["valid_subset"]
    if not changes and _has_same_data(before, after, deciding_split) is False:
        changes = [f"other data in the split {deciding_split} than it had"]
    if changes and start.state["extra_state"].get("best") is not None:
        logger.warning(
            "what was the best in %s doesn't count, as validations now measure something else: %s",
            start.path,
            ", ".join(changes),
        )
    return not changes


def _measure(identity: Identity) -> dict[str, Any]:
    """Options by which the value that decides what is best is measured."""
    groups = identity.groups
    metric = groups["validation"]["best_checkpoint_metric"]
    deciding_split = groups["batches"].get("valid_subset", "").partition(",")[0]
    further = {
        name: groups[group][name]
        for group, names in MEASURING.get(metric, {}).items()
        for name in names
        if name in groups.get(group, {})
    }
    return {"best_checkpoint_metric": metric, "valid_subset": deciding_split, **further}


def _refuse(start: Start, changes: list[str], otherwise: str) -> None:
    if changes:
        raise UserError(f"{start.path} can't go on with {', '.join(changes)}: keep what it had, or {otherwise}")


def _changes(before: Identity, after: Identity, names: Mapping[str, Sequence[str]]) -> list[str]:
    """Named options that differ, each like `--seed 2 (it had 1)`."""
    return [
        f"{flag_of(name)} {now[name]} (it had {was[name]})"
        for group in names
        if (now := after.groups.get(group)) is not None and (given := before.groups.get(group)) is not None
        for was in [{**BEFORE_THE_OPTION.get(group, {}), **given}]
        for name in names[group]
        if name in was and name in now and now[name] != was[name]  # older versions had fewer options
    ]
