"""Unpickling of tensors and plain values alone: no class of the file is imported, and no function of it is called."""

from __future__ import annotations

import math
import pickle
from collections import OrderedDict
from collections.abc import Callable
from typing import IO, Any, ClassVar

import torch
from torch import Tensor

STORAGES = {
    "UntypedStorage": torch.uint8,
    "ByteStorage": torch.uint8,
    "CharStorage": torch.int8,
    "BoolStorage": torch.bool,
    "ShortStorage": torch.int16,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "IntStorage": torch.int32,
    "FloatStorage": torch.float32,
    "LongStorage": torch.int64,
    "DoubleStorage": torch.float64,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
}
"""The dtype of a storage, by the name that torch has for it in a pickle."""

Storage = Callable[[torch.dtype, str, int], Tensor]
"""(dtype, key, number of elements) → the numbers that a file has under that key, one-dimensional."""


class Foreign(dict[Any, Any]):
    """An object of a class that isn't made: what the pickle says of it, and nothing that it would do.

    Attributes:
        origin: the module and name of its class or function.
        arguments: what it would have been called with.
        state: what its attributes would have been set to.

    Items that would have been put into it are kept as a dict's, those that would have been appended in `appended`.
    """

    origin = "an unknown class"

    def __init__(self, *arguments: Any, **_: Any) -> None:
        super().__init__()
        self.arguments = arguments
        self.appended: list[Any] = []
        self.state: Any = None

    def __new__(cls, *_: Any, **__: Any) -> Foreign:
        """Takes whatever arguments a pickle has."""
        return super().__new__(cls)

    def __hash__(self) -> int:  # type: ignore[override]
        """Its own, so that it may be a key."""
        return id(self)

    def append(self, item: Any) -> None:
        """Keeps what would have been appended."""
        self.appended.append(item)


class PlainUnpickler(pickle._Unpickler):
    """Builds tensors, dicts, lists, tuples and plain values; everything else becomes a `Foreign`.

    Python's own unpickler rather than the one in C, which sets aside as much memory as a damaged file tells it to.

    Args:
        file: at the beginning of the pickle.
        storage: finds the numbers of a tensor.

    Attributes:
        foreign: origins of the `Foreign` objects, in the order in which the pickle names them.

    Raises:
        Exception: of any kind, for a damaged pickle (by `load`).
    """

    dispatch: ClassVar[dict[int, Callable[[pickle.Unpickler], None]]] = dict(pickle._Unpickler.dispatch)

    def __init__(self, file: IO[bytes], storage: Storage) -> None:
        super().__init__(file)
        self.foreign: list[str] = []
        self._storage = storage

    def find_class(self, module: str, name: str) -> Any:
        """A maker of tensors or of an ordered dict, the name of a storage, or a subclass of `Foreign`."""
        if (module, name) in MAKERS:
            return MAKERS[module, name]
        if module == "torch" and name in STORAGES:
            return name
        origin = f"{module}.{name}"
        self.foreign.append(origin)
        return type("Foreign", (Foreign,), {"origin": origin})

    def persistent_load(self, pid: Any) -> Tensor:
        """The numbers of a storage."""
        kind, storage, key, _, count, *view = pid
        if kind != "storage" or type(count) is not int or count < 0 or not isinstance(key, str):
            raise ValueError("a tensor's numbers are described in an unknown way")
        numbers = self._storage(STORAGES[storage], key, count)
        if view and view[0] is not None:
            _, first, length = view[0]
            numbers = numbers[first : first + length]
        return numbers

    def load_build(self) -> None:
        """Sets the state of a `Foreign`, and of nothing else: attributes of classes and functions stay theirs."""
        state = self.stack.pop()  # type: ignore[attr-defined]
        made = self.stack[-1]  # type: ignore[attr-defined]
        if isinstance(made, Foreign):
            made.state = state
        elif not isinstance(made, OrderedDict):  # of a state_dict: versions of its modules
            raise pickle.UnpicklingError(f"a {type(made).__name__} has no state")

    dispatch[pickle.BUILD[0]] = load_build  # type: ignore[assignment]


def _tensor(numbers: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Tensor:
    """A tensor's view of its storage; one of more elements than the storage has is refused, as no model's is."""
    if not 0 <= offset <= len(numbers) or math.prod(size) > len(numbers) or min((*size, *stride, 0)) < 0:
        raise ValueError("a tensor is larger than its storage")
    return numbers.as_strided(size, stride, offset)


def _parameter(data: Tensor, *_: Any) -> Tensor:
    if not isinstance(data, Tensor):
        raise TypeError("a parameter is no tensor")
    return data


MAKERS: dict[tuple[str, str], Callable[..., Any]] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
}
"""All that a pickle may call, by the name that it calls it by."""


def plain(thing: Any) -> Any:
    """Values without the classes that held them: a Namespace or an omegaconf node becomes a dict, list or value."""
    if isinstance(thing, Foreign):
        return _contents(thing)
    if isinstance(thing, dict):
        return {key: plain(value) for key, value in thing.items()}
    if isinstance(thing, list | tuple):
        return type(thing)(map(plain, thing))
    return thing


def _contents(thing: Foreign) -> Any:
    state = thing.state
    if isinstance(state, dict) and "_content" in state:  # an omegaconf dict or list
        return plain(state["_content"])
    if isinstance(state, dict) and "_val" in state:  # an omegaconf value
        return plain(state["_val"])
    if isinstance(state, dict):
        return plain(state)
    if thing or thing.appended:
        return plain(dict(thing)) if thing else plain(thing.appended)
    return plain(thing.arguments[0]) if len(thing.arguments) == 1 else None  # an enum's value
