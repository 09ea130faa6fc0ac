"""Batch Augmentation for sequence models: M noisy copies of every example, one merged gradient per update.

Names are imported when they are asked for: a command that only reads its options doesn't wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from seqba import nn
    from seqba.checking.check import check
    from seqba.core import (
        Carry,
        RepeatingBatchSampler,
        Step,
        compare_copies,
        copies,
        current_noise,
        finish_update,
        fork,
        grid_gradient,
        keyed,
        merged_gradient,
        per_copy,
        replicate,
        replicating_collate,
    )
    from seqba.distributed import Ranks
    from seqba.errors import RanksLost

__version__ = "0.1.0"

__all__ = [
    "Carry",
    "Ranks",
    "RanksLost",
    "RepeatingBatchSampler",
    "Step",
    "__version__",
    "check",
    "compare_copies",
    "copies",
    "current_noise",
    "finish_update",
    "fork",
    "grid_gradient",
    "keyed",
    "merged_gradient",
    "nn",
    "per_copy",
    "replicate",
    "replicating_collate",
]

_PARTS = ("checking", "core", "distributed", "errors", "nn")
"""Packages and modules that `import seqba` suffices for: those that it imported when it wasn't lazy."""

_HOMES = {"Ranks": "seqba.distributed", "RanksLost": "seqba.errors", "check": "seqba.checking.check"}
"""Modules of the names that aren't `seqba.core`'s."""


def __getattr__(name: str) -> object:
    if name in _PARTS:
        return import_module(f"seqba.{name}")
    if name not in __all__:
        raise AttributeError(f"module 'seqba' has no attribute {name!r}")
    value: object = getattr(import_module(_HOMES.get(name, "seqba.core")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_PARTS})
