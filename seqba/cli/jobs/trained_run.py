"""Runs opened again from a checkpoint and the data: the model, and the task in batches of another size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from seqba.checkpoints.model import LoadedModel, build_model, load_model
from seqba.cli.output import warn_on_stderr
from seqba.data.names import split_paths
from seqba.errors import UserError
from seqba.models.families import ARCHITECTURES, family_of
from seqba.nn.drop_path import DropPath, EpochRise
from seqba.options import options_from
from seqba.tasks import Task
from seqba.tasks.image_options import ImageOptions
from seqba.tasks.opening import open_task
from seqba.tasks.options import BatchOptions, CriterionOptions
from seqba.tasks.registry import VARIANTS
from seqba.tasks.text_options import TranslationOptions

Options = TypeVar("Options")


@dataclass(frozen=True)
class TrainedRun:
    """Checkpoint of a run, with the data that it is measured on.

    Attributes:
        path: the checkpoint.
        data: a data-bin or a folder of pictures.
        loaded: its model and what it says of itself.
    """

    path: str
    data: str
    loaded: LoadedModel

    @classmethod
    def load(cls, path: str, data: str, device: torch.device) -> TrainedRun:
        """Reads a checkpoint.

        Raises:
            UserError: for a file that is no checkpoint, or data that aren't there.
        """
        loaded = load_model(path, device)
        if not all(Path(folder).is_dir() for folder in split_paths(data)):
            raise UserError(
                f"there is no folder {data}: give the data-bin, or the pictures, that {path} was trained on"
            )
        place = _fork_place(loaded.cfg)
        if place is not None:
            warn_on_stderr(f"{path} was trained with --fork {place}, and these are copies from the input on")
        return cls(path, data, loaded)

    @property
    def model(self) -> nn.Module:
        """Model with the checkpoint's weights, in evaluation mode."""
        return self.loaded.model

    @property
    def task_name(self) -> str:
        """Name of the task."""
        return str(self._cfg("task", "name"))

    def fresh_model(self, seed: int, device: torch.device) -> nn.Module:
        """Model of the same architecture with new weights, as before its first update."""
        torch.manual_seed(seed)
        return build_model(self.loaded.cfg["model"], self.loaded.task_state).to(device)

    def batches(self) -> BatchOptions:
        """Batch options that it was trained with."""
        return self.options(BatchOptions, "task", "batches")

    def options(self, kind: type[Options], *names: str) -> Options:
        """Options under these names of the checkpoint's cfg.

        Raises:
            UserError: where there are none, or those of another version.
        """
        try:
            return options_from(kind, self._cfg(*names))
        except (TypeError, AttributeError) as error:
            raise UserError(f"checkpoint {self.path} doesn't say how it was trained: {error}") from None

    def hold_drop_path(self, model: nn.Module, update: int) -> None:
        """Gives the drop path of a model, which rises over a run, the probability of an update of this run.

        Args:
            model: of the run's architecture.
            update: its number, from 1; 0 for new weights, as 1.

        Raises:
            UserError: for a checkpoint that doesn't say where the rise ends, or data that can't be opened.
        """
        paths = [module for module in model.modules() if isinstance(module, DropPath) and module.p > 0]
        if not paths:
            return
        epochs = self._cfg("training", "schedule", "drop_path_epochs") or self._cfg("training", "run", "max_epoch")
        micro_batches = self._cfg("training", "grid", "update_freq")[0]
        epoch_updates = -(-len(self.open_task(self.batches(), seed=1).epoch(1, micro_batches)) // micro_batches)
        share = EpochRise(epoch_updates, epochs)(update)
        for path in paths:
            path.rise = lambda _: share

    def check_fork(self, place: str) -> None:
        """Refuses a place that the model doesn't have.

        Raises:
            UserError: naming those that it has.
        """
        arch = str(self._cfg("model", "arch"))
        family = family_of(arch)
        places = family.fork_places(arch, family.read(self._cfg("model", "options")))
        if place not in places:
            known = f"choose one of {', '.join(places)}" if places else "it has none"
            raise UserError(f"--fork {place} has no place in {self.path}, a {arch}: {known}")

    def open_task(self, batches: BatchOptions, *, seed: int, cutout: int | None = None) -> Task[Any]:
        """Opens the task on the data.

        Args:
            batches: how its examples are grouped.
            seed: of their order.
            cutout: for images, the side of the square that is blanked instead of the one in training.

        Raises:
            UserError: for data that aren't there or aren't what the model was trained for.
        """
        criterion = self.options(CriterionOptions, "task", "criterion")
        if criterion.compares_copies:
            raise UserError(
                f"checkpoint {self.path} was trained with {criterion.comparing_option}, whose loss compares the "
                "copies of an example: it has no gradient of a single copy to measure"
            )
        task = self._open(batches, criterion, seed, cutout)
        state = task.state()
        if any(state.get(name) != value for name, value in self.loaded.task_state.items()):
            raise UserError(
                f"checkpoint {self.path} was trained with other dictionaries, languages or classes than those of "
                f"{self.data}: give the data that it was trained on"
            )
        return task

    def _open(self, batches: BatchOptions, criterion: CriterionOptions, seed: int, cutout: int | None) -> Task[Any]:
        arch = str(self._cfg("model", "arch"))
        variant = VARIANTS.get((self.task_name, ARCHITECTURES[arch]))
        if variant is None:
            raise UserError(f"checkpoint {self.path} is damaged: there is no {self.task_name} with {arch}")
        chosen = self.options(variant.options, "task", variant.group)
        if isinstance(chosen, ImageOptions):
            chosen = replace(chosen, num_workers=0, cutout=chosen.cutout if cutout is None else cutout)
        elif cutout is not None:
            raise UserError(f"--cutout is for pictures; {self.path} is of a {self.task_name} run")
        if isinstance(chosen, TranslationOptions) and chosen.subword_sampling:
            chosen = replace(chosen, subword_sampling=0.0)
            warn_on_stderr(
                f"{self.path} was trained with --subword-sampling: examples have the subwords of {self.data} here, and "
                "the noise is that of the model alone"
            )
        config = family_of(arch).read(self._cfg("model", "options"))
        return open_task(variant, self.data, chosen, batches, criterion, seed, config)

    def _cfg(self, *names: str) -> Any:
        found: Any = self.loaded.cfg
        for name in names:
            if not isinstance(found, Mapping) or name not in found:
                raise UserError(f"checkpoint {self.path} doesn't say how it was trained: there is no {'.'.join(names)}")
            found = found[name]
        return found


def _fork_place(cfg: Mapping[str, Any]) -> str | None:
    """Place at which copies began in training; None for the input, and where a checkpoint doesn't say."""
    training = cfg.get("training")
    grid = training.get("grid") if isinstance(training, Mapping) else None
    place = grid.get("fork") if isinstance(grid, Mapping) and grid.get("arm") in ("ba", "fixed-rows") else None
    return place if isinstance(place, str) else None
