"""Checkpoint files: written whole or not at all, read without running anything in them, and checked when opened.

Keys are fairseq's where they mean the same: `model` (the plain state_dict), `args` (None), `cfg`, `optimizer_history`,
`task_state`, `extra_state`, `last_optimizer_state`.
"""

from __future__ import annotations

import errno
import io
import os
import pickle
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import torch
from torch import Tensor, nn

from seqba.data.files import atomic_write
from seqba.distributed import cut_like
from seqba.errors import UserError
from seqba.models.architectures import (
    ARCHITECTURES,
    build_awd_lstm,
    build_image_classifier,
    build_transformer,
    build_transformer_lm,
)
from seqba.models.awd_lstm import AWDLSTM
from seqba.models.classifier import ImageClassifier
from seqba.models.options import AWDLSTMOptions, ImageClassifierOptions, TransformerLMOptions, TransformerOptions
from seqba.models.transformer import Transformer
from seqba.models.transformer_lm import TransformerLM
from seqba.options import options_from
from seqba.training.archive import open_archive, unreadable

Model = Transformer | TransformerLM | AWDLSTM | ImageClassifier
READERS = {
    "translation": "seqba-generate",
    "language_modeling": "seqba-eval-lm",
    "image_classification": "seqba-eval-image",
}
FIRST_KEY_VERSION = 1
"""What drew the noise of checkpoints that don't say which `seqba.core.noise.KEY_VERSION` they are of."""

SIZES = ("source_vocabulary", "target_vocabulary", "vocabulary", "classes", "image_size")
"""What a task says of its data that a model is made for."""

REQUIRED = {"model": dict, "cfg": dict, "task_state": dict, "extra_state": dict, "optimizer_history": list}


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

    model: Model
    cfg: Mapping[str, Any]
    task_state: Mapping[str, Any]
    updates: int


def write_checkpoint(path: str | Path, state: Mapping[str, Any]) -> None:
    """Writes a checkpoint that is whole as soon as it has its name.

    Raises:
        OSError: where the file system fails (a full disk, say); the file that had the name before is untouched.
    """
    with atomic_write(path) as file:
        guarded = _RememberingWriter(file)
        try:
            torch.save(dict(state), cast(IO[bytes], guarded))
        except RuntimeError:
            # torch's zip writer reports a failed write as an internal error of its own.
            raise guarded.failure or OSError(errno.EIO, "writing failed", str(path)) from None


def copy_checkpoint(source: Path, target: Path) -> None:
    """Gives a checkpoint a second name, atomically: a hard link where there are any, else a copy.

    Checkpoints are replaced, never changed in place, so that a link is as good as a copy and takes neither time nor
    room.
    """
    partial = target.with_name(f".{target.name}.partial")
    partial.unlink(missing_ok=True)
    try:
        os.link(source, partial)
    except OSError:
        with source.open("rb") as old, atomic_write(target) as new:
            shutil.copyfileobj(old, new, 1 << 24)
        return
    partial.replace(target)


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Reads a checkpoint into CPU memory and checks that it is one of seqba's.

    Raises:
        UserError: for a file that is missing, truncated, of another program, or lacks a part.
    """
    with open_archive(path) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a pickle that torch doubts: the checks below say what is wrong with it
        try:
            state = torch.load(file, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError:
            raise UserError(
                f"checkpoint {path} holds more than tensors and plain values, so it is not of seqba-train (fairseq's "
                "checkpoints hold program objects and are not read), or it is damaged"
            ) from None
        except Exception:  # torch's unpickler raises whatever a damaged pickle leads it to
            raise UserError(unreadable(path)) from None
    if not isinstance(state, dict):
        raise UserError(f"checkpoint {path} holds a {type(state).__name__}, not a run of seqba-train")
    for key, kind in REQUIRED.items():
        if not isinstance(state.get(key), kind):
            raise UserError(f"checkpoint {path} was not written by seqba-train: it has no {key!r}")
    if not all(isinstance(value, Tensor) for value in state["model"].values()):
        raise UserError(f"checkpoint {path} is damaged: 'model' holds more than tensors")
    if not all(isinstance(entry, dict) for entry in state["optimizer_history"]):
        raise UserError(f"checkpoint {path} is damaged: 'optimizer_history' holds more than entries")
    if type(count_updates(state)) is not int:
        raise UserError(f"checkpoint {path} is damaged: it has seen {count_updates(state)!r} updates")
    _say_what_older_versions_left_out(state["cfg"])
    return state


def build_model(model_cfg: Mapping[str, Any], task_state: Mapping[str, Any]) -> Model:
    """The model that `cfg["model"]` and what the task says of its data describe, with fresh weights."""
    options = model_cfg["options"]
    sizes = {name: task_state[name] for name in SIZES if name in task_state}
    if any(type(size) is not int or not 0 < size < 1 << 31 for size in sizes.values()):
        raise ValueError(f"sizes of the data are {sizes}")
    family = ARCHITECTURES[model_cfg["arch"]].family
    if family == "transformer_lm":
        return build_transformer_lm(options_from(TransformerLMOptions, options), task_state["vocabulary"])
    if family == "awd_lstm":
        return build_awd_lstm(options_from(AWDLSTMOptions, options), task_state["vocabulary"])
    if family == "image_classifier":
        image_options = options_from(ImageClassifierOptions, options)
        return build_image_classifier(model_cfg["arch"], image_options, task_state["classes"], task_state["image_size"])
    vocabularies = (sizes["source_vocabulary"], sizes["target_vocabulary"])
    return build_transformer(options_from(TransformerOptions, options), *vocabularies)


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
        reader = f"; it is of {own}: use {READERS[own]}" if isinstance(own, str) and own in READERS else ""
        article = "an" if task[0] in "aeiou" else "a"
        raise UserError(f"checkpoint {path} is not of {article} {task.replace('_', ' ')} run{reader}")
    try:
        model_cfg = {**state["cfg"]["model"], "options": {**state["cfg"]["model"]["options"], **(overrides or {})}}
        with torch.device("meta"):  # without memory: what a damaged file describes may be of any size
            outline = build_model(model_cfg, state["task_state"])
    except Exception as error:  # a damaged description may hold anything
        raise UserError(f"checkpoint {path} describes no model that this version can build: {error}") from None
    _check_weights(outline.state_dict(), state["model"], path)
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


def count_updates(state: Mapping[str, Any]) -> int:
    """How many updates a checkpoint's weights have seen (0 where it says nothing)."""
    history = state["optimizer_history"]
    updates: int = history[-1].get("num_updates", 0) if history else 0
    return updates


def model_options(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """The model's options that a checkpoint's cfg has; none where it describes no model."""
    model = cfg.get("model")
    options = model.get("options") if isinstance(model, dict) else None
    return options if isinstance(options, dict) else {}


def plain_options(options: Any) -> dict[str, Any]:
    """An options dataclass as plain values that `weights_only` accepts and JSON can hold."""
    plain: dict[str, Any] = _plain(asdict(options))
    return plain


def _say_what_older_versions_left_out(cfg: dict[str, Any]) -> None:
    """Adds to a checkpoint's cfg what was a constant when it was written."""
    cfg.setdefault("key_version", FIRST_KEY_VERSION)
    options = model_options(cfg)
    known = ARCHITECTURES.get(str(cfg["model"].get("arch"))) if options else None
    if known is not None and "first_position" in known.fields:
        options.setdefault("first_position", 0)


class _RememberingWriter(io.RawIOBase):
    """Passes writes on, and remembers the error of the file system that torch's writer hides."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self._file = file
        self.failure: OSError | None = None

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        try:
            return self._file.write(data)
        except OSError as error:
            self.failure = error
            raise

    def flush(self) -> None:
        try:
            self._file.flush()
        except OSError as error:
            self.failure = error
            raise


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, tuple) else value
