"""Models from checkpoints: built from the configuration in the file, with its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from seqba.checkpoints.file import count_updates, read_checkpoint
from seqba.checkpoints.undrawn import Undrawn
from seqba.distributed import cut_like
from seqba.errors import UserError
from seqba.models.builders import fresh_model
from seqba.models.families import family_of
from seqba.tasks.registry import TASKS


@dataclass(frozen=True)
class LoadedModel:
    """A model rebuilt from a checkpoint, in evaluation mode.

    Attributes:
        model: the model with its weights.
        cfg: {"task", "model", "training", "version"}: what was resolved when it was trained, plain values.
        task_state: what the task said of itself, its `state()`: its name, size and digest of its dictionaries, and the
            languages of a translation.
        updates: how many updates it had seen.
    """

    model: nn.Module
    cfg: Mapping[str, Any]
    task_state: Mapping[str, Any]
    updates: int


def build_model(model_cfg: Mapping[str, Any], task_state: Mapping[str, Any]) -> nn.Module:
    """Model of the configuration `cfg["model"]` for the data of a task's state, with fresh weights."""
    family = family_of(model_cfg["arch"])
    sizes = {name: task_state[name] for name in family.data_sizes}
    if any(type(size) is not int or not 0 < size < 1 << 31 for size in sizes.values()):
        raise ValueError(f"sizes of the data are {sizes}")
    return fresh_model(model_cfg["arch"], family.read(model_cfg["options"]), sizes)


def load_model(
    path: str | Path,
    device: torch.device | str = "cpu",
    *,
    overrides: Mapping[str, Any] | None = None,
    task: str | None = None,
) -> LoadedModel:
    """Rebuilds the model of a checkpoint.

    Args:
        path: the file.
        device: where the model shall be.
        overrides: fields of its options to replace before it is built.
        task: what it must have been trained for; None for anything.

    Raises:
        UserError: for a file that isn't a checkpoint, is of another task, or whose weights don't fit the model it
            describes.
    """
    state = read_checkpoint(path)
    own = state["task_state"].get("task")
    if task is not None and own != task:
        reader = f"; it is of {own}: use {TASKS[own].reader}" if isinstance(own, str) and own in TASKS else ""
        article = "an" if task[0] in "aeiou" else "a"
        raise UserError(f"checkpoint {path} is not of {article} {task.replace('_', ' ')} run{reader}")
    try:
        model_cfg = {**state["cfg"]["model"], "options": {**state["cfg"]["model"]["options"], **(overrides or {})}}
        with torch.device("meta"), Undrawn():  # without memory: what a damaged file describes may be of any size
            outline = build_model(model_cfg, state["task_state"])
    except Exception as error:  # a damaged description may hold anything
        raise UserError(f"checkpoint {path} describes no model that this version can build: {error}") from None
    _check_weights(outline.state_dict(), state["model"], path)
    with Undrawn():
        model = build_model(model_cfg, state["task_state"])
    load_weights(model, state, path)
    return LoadedModel(model.to(device).eval(), state["cfg"], state["task_state"], count_updates(state))


def load_weights(model: nn.Module, state: Mapping[str, Any], path: str | Path) -> None:
    """Copies a checkpoint's weights into `model`, whole or sharded.

    Raises:
        UserError: naming the first weight that is missing, surplus or of another shape.
    """
    own, given = model.state_dict(), state["model"]
    _check_weights(own, given, path)
    model.load_state_dict({name: cut_like(tensor, given[name]) for name, tensor in own.items()})


def _check_weights(own: Mapping[str, Tensor], given: Mapping[str, Tensor], path: str | Path) -> None:
    for name, tensor in own.items():
        if name not in given:
            raise UserError(f"checkpoint {path} has no weight {name!r}: it is of another architecture")
        if given[name].shape != tensor.shape:
            raise UserError(
                f"checkpoint {path} has {name!r} of shape {tuple(given[name].shape)}, the model {tuple(tensor.shape)}: "
                "it is of another architecture or dictionary"
            )
        if given[name].is_floating_point() != tensor.is_floating_point():
            raise UserError(f"checkpoint {path} is damaged: {name!r} holds {given[name].dtype}")
    surplus = [name for name in given if name not in own]
    if surplus:
        raise UserError(f"checkpoint {path} has a weight {surplus[0]!r} that the model lacks: another architecture")
