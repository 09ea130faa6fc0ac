"""Draws that no key reaches, seen where every operation passes: below torch's functions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from seqba.keying.owner import find_owner

HALF_PRECISIONS = (torch.bfloat16, torch.float16)

# Arguments by which an operation that may draw says that it doesn't.
_OFF: dict[str, tuple[object, ...]] = {
    "dropout_p": (0,),
    "dropout": (0,),
    "train": (False,),
    "training": (False,),
}


@dataclass(frozen=True)
class UnkeyedDraw:
    """Noise that is drawn from torch's own generators.

    Attributes:
        module: name of the module whose code draws it; "" for the model itself, or for code outside of it.
        kind: the class of that module; "" where there is none.
        operation: of torch, as `aten.native_dropout`.
        times: how often in a forward of one copy.
    """

    module: str
    kind: str
    operation: str
    times: int


class UnkeyedDraws(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes every operation that draws without a generator of its caller's.

    Right for one pass, too slow for training. It doesn't see into compiled graphs and custom kernels.

    Args:
        names: `id` of a module → its name.

    Attributes:
        half: the half precision that something was computed in, by the weights or by autocast; None for none.
    """

    def __init__(self, names: Mapping[int, str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._names = names
        self.half: torch.dtype | None = None
        self._counts: Counter[tuple[str, str, str]] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Runs the operation, and notes it."""
        kwargs = kwargs or {}
        if torch.Tag.nondeterministic_seeded in func.tags and _draws(func, args, kwargs):
            owner = find_owner(self._names)
            name = self._names.get(id(owner))
            kind = "" if name is None else type(owner).__name__
            self._counts[name or "", kind, str(func).rpartition(".")[0]] += 1
        result = func(*args, **kwargs)
        for part in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(part, Tensor) and part.dtype in HALF_PRECISIONS:
                self.half = part.dtype
        return result

    def found(self) -> tuple[UnkeyedDraw, ...]:
        """Draws that have been noted, in the order of first draws."""
        return tuple(UnkeyedDraw(*place, times) for place, times in self._counts.items())


def _draws(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    arguments = func._schema.arguments
    named = {argument.name: argument.default_value for argument in arguments if argument.has_default_value()}
    named |= {argument.name: value for argument, value in zip(arguments, args, strict=False)} | kwargs
    if any(isinstance(value, torch.Generator) for value in named.values()):
        return False
    return not any(name in named and named[name] in off for name, off in _OFF.items())
