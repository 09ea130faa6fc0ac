"""What a checkpoint says of its run, opened again on the data: the model, and the task in batches of another size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from seqba.checkpoints.model import LoadedModel, build_model, load_model
from seqba.errors import UserError
from seqba.options import options_from
from seqba.tasks import Task
from seqba.tasks.image_classification import ImageClassification, ImageOptions
from seqba.tasks.language_modeling import BlockOptions, LanguageModeling
from seqba.tasks.options import BatchOptions, CriterionOptions
from seqba.tasks.streams import StreamLanguageModeling, StreamOptions
from seqba.tasks.translation import Translation, TranslationOptions

Options = TypeVar("Options")


@dataclass(frozen=True)
class TrainedRun:
    """A checkpoint, and the data that it is looked at on.

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
        if not all(Path(folder).is_dir() for folder in data.split(":")):
            raise UserError(
                f"there is no folder {data}: give the data-bin, or the pictures, that {path} was trained on"
            )
        return cls(path, data, loaded)

    @property
    def model(self) -> nn.Module:
        """The model."""
        return self.loaded.model

    @property
    def task_name(self) -> str:
        """The task's name."""
        return str(self._cfg("task", "name"))

    def fresh_model(self, seed: int, device: torch.device) -> nn.Module:
        """The same architecture with new weights: the model before its first update."""
        torch.manual_seed(seed)
        return build_model(self.loaded.cfg["model"], self.loaded.task_state).to(device)

    def batches(self) -> BatchOptions:
        """How its examples were grouped."""
        return self.options(BatchOptions, "task", "batches")

    def options(self, kind: type[Options], *names: str) -> Options:
        """Options that its cfg holds under these names.

        Raises:
            UserError: where there are none, or those of another version.
        """
        try:
            return options_from(kind, self._cfg(*names))
        except (TypeError, AttributeError) as error:
            raise UserError(f"checkpoint {self.path} doesn't say how it was trained: {error}") from None

    def open_task(self, batches: BatchOptions, *, seed: int, cutout: int | None = None) -> Task[Any]:
        """The task on the data.

        Args:
            batches: how its examples are grouped.
            seed: of their order.
            cutout: for images, the side of the square that is blanked instead of the one in training.

        Raises:
            UserError: for data that aren't there or aren't what the model was trained for.
        """
        criterion = self.options(CriterionOptions, "task", "criterion")
        task = self._open(batches, criterion, seed, cutout)
        if task.state() != dict(self.loaded.task_state):
            raise UserError(
                f"checkpoint {self.path} was trained with other dictionaries, languages or classes than those of "
                f"{self.data}: give the data that it was trained on"
            )
        return task

    def _open(self, batches: BatchOptions, criterion: CriterionOptions, seed: int, cutout: int | None) -> Task[Any]:
        groups, sizes = self._cfg("task"), self._cfg("model", "options")
        if "images" in groups:
            images = self.options(ImageOptions, "task", "images")
            images = replace(images, num_workers=0, cutout=images.cutout if cutout is None else cutout)
            return ImageClassification(self.data, images, batches, criterion, seed=seed)
        if cutout is not None:
            raise UserError(f"--cutout is for pictures; {self.path} is of a {self.task_name} run")
        if "streams" in groups:
            streams = self.options(StreamOptions, "task", "streams")
            return StreamLanguageModeling(self.data, streams, batches, criterion, seed=seed)
        if "blocks" in groups:
            longest = sizes["max_target_positions"]
            blocks = self.options(BlockOptions, "task", "blocks")
            return LanguageModeling(self.data, blocks, batches, criterion, seed=seed, max_positions=longest)
        return Translation(
            self.data,
            self.options(TranslationOptions, "task", "translation"),
            batches,
            criterion,
            seed=seed,
            max_source_positions=sizes["max_source_positions"],
            max_target_positions=sizes["max_target_positions"],
        )

    def _cfg(self, *names: str) -> Any:
        found: Any = self.loaded.cfg
        for name in names:
            if not isinstance(found, Mapping) or name not in found:
                raise UserError(f"checkpoint {self.path} doesn't say how it was trained: there is no {'.'.join(names)}")
            found = found[name]
        return found
