"""Identity of a run, and its form in a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from seqba import __version__
from seqba.noise.sites import KEY_VERSION
from seqba.options import plain_options
from seqba.training.options import TrainingOptions


@dataclass(frozen=True)
class RunRecord:
    """Record of a run that every checkpoint keeps and that stays the same while it trains.

    Attributes:
        task: name, data and groups of options of the task, as plain values.
        arch: name of the architecture.
        model: resolved options of the model, as plain values.
        training: all other options.
        task_state: plain values that the task says of its data (dictionaries, sizes).
        fingerprints: digests of the data of each split, those of training and of validation.
        key_version: of the noise.
        version: of seqba.
    """

    task: Mapping[str, Any]
    arch: str
    model: Mapping[str, Any]
    training: TrainingOptions
    task_state: Mapping[str, Any]
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    key_version: int = KEY_VERSION
    version: str = __version__

    @property
    def criterion(self) -> str:
        """Name of what is minimised."""
        name: str = self.task["criterion"]["criterion"]
        return name

    def options(self) -> dict[str, Any]:
        """All options by name, as plain values."""
        own = [group for group in self.task.values() if isinstance(group, Mapping)]
        named: dict[str, Any] = {"task": self.task.get("name"), "data": self.task.get("data"), "arch": self.arch}
        for group in (*own, *plain_options(self.training).values(), self.model):
            named |= group
        return named

    def cfg(self) -> dict[str, Any]:
        """Form in a checkpoint's `cfg`, plain values throughout."""
        return {
            "task": self.task,
            "model": {"arch": self.arch, "options": self.model},
            "training": plain_options(self.training),
            "fingerprints": dict(self.fingerprints),
            "key_version": self.key_version,
            "version": self.version,
        }


@dataclass(frozen=True)
class Identity:
    """Options and data that two commands are compared by, one of them read from a checkpoint.

    Attributes:
        arch: name of the architecture.
        groups: all options by the names that groups have in a checkpoint, those of the model under "model". A run has
            only the groups of its task, and older versions had fewer options.
        task_state: see `RunRecord`.
        key_version: of the noise.
        version: of seqba; "of then" in the files of versions that didn't say.
        data: what the command named; None where a file doesn't say.
        fingerprints: see `RunRecord`; empty in the files of versions that had none.
    """

    arch: str
    groups: Mapping[str, Mapping[str, Any]]
    task_state: Mapping[str, Any]
    key_version: int
    version: str
    data: str | None = None
    fingerprints: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of_file(cls, cfg: Mapping[str, Any], task_state: Mapping[str, Any]) -> Identity:
        """Identity of a checkpoint's run."""
        return cls(
            arch=cfg["model"]["arch"],
            groups={**cfg["task"], **cfg["training"], "model": cfg["model"]["options"]},
            task_state=task_state,
            key_version=cfg["key_version"],
            version=cfg.get("version", "of then"),
            data=cfg["task"].get("data"),
            fingerprints=cfg.get("fingerprints", {}),
        )

    @classmethod
    def of(cls, record: RunRecord) -> Identity:
        """Identity of this run."""
        return cls.of_file(record.cfg(), record.task_state)
