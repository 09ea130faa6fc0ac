"""Batches of other kinds than tensors, lists and dicts."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple

from torch import Tensor


class Named(NamedTuple):
    x: Tensor
    y: Tensor


@dataclass(frozen=True)
class Pairs:
    source: Tensor
    inner: Named
    language: str


class Kind(Enum):
    TRAIN = 1


class Subclass(Tensor):
    pass


@dataclass
class Scaled:
    """Its constructor changes what it is given; a field and an attribute of it are no arguments."""

    x: Tensor
    mask: Tensor = field(init=False)
    epoch: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.x = self.x / 2
        self.mask = self.x > 0

    @functools.cached_property
    def total(self) -> float:
        return float(self.x.sum())


@dataclass(frozen=True)
class Slotted:
    __slots__ = ("epoch", "x")
    x: Tensor
    epoch: int


class Attributed(dict[str, Any]):
    scale = 1.0


class Rigid(dict[str, Any]):
    def __init__(self, number: int, x: Tensor) -> None:
        super().__init__(x=x)


class ForeignMapping(Mapping[str, Any]):
    def __init__(self, **parts: Any) -> None:
        self.parts = parts

    def __getitem__(self, name: str) -> Any:
        return self.parts[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.parts)

    def __len__(self) -> int:
        return len(self.parts)
