"""What of a nested batch holds rows, what all rows share, and what is refused because that can't be known."""

from __future__ import annotations

import dataclasses
import functools
from collections import UserDict, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import Enum
from numbers import Number
from pathlib import PurePath
from types import MappingProxyType
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.nn.utils.rnn import PackedSequence

BatchT = TypeVar("BatchT")
# Called with a tensor, list or tuple whose dimension 0 or items are rows, and its place in the batch.
RowFunction = Callable[[Any, str], Any]

_SHARED = (type(None), str, bytes, Number, Enum, PurePath, torch.dtype, torch.device, torch.Size)
_PLAIN = frozenset([type(None), bool, int, float, str])
"""What most lists in a batch are of, told by the class alone: to ask `Number` takes longer, and lists may be long."""
_TEXTS = (str, bytes, PurePath)
# Mappings whose constructors take a dictionary; what others' do can't be known.
_MAPPINGS = (dict, UserDict, MappingProxyType)


def map_rows(batch: Any, function: RowFunction, path: str = "batch") -> Any:
    """The same nesting with `function` applied to everything in it that holds rows (see the table of `replicate`).

    Raises:
        TypeError: for what may hold rows in a way that can't be known, naming its place and type.
    """
    if _is_shared(batch):
        return batch
    if isinstance(batch, Tensor):
        _check_tensor(batch, path)
        return function(batch, path)
    if _is_row_list(batch):
        _check_row_list(batch, path)
        return _remake(batch, function(batch, path), path)
    parts = _parts(batch)
    if parts is None:
        raise TypeError(f"{path} is {_a(batch)}, whose rows can't be known: pass {_instead(batch)}")
    return _rebuild(batch, {name: map_rows(part, function, path + _place(batch, name)) for name, part in parts}, path)


def own_parts(batch: BatchT) -> BatchT:
    """The same batch in containers and memory of its own, down to the items of lists.

    What can't be made anew stays what it is; no batch of repeated rows holds any of that.
    """
    if isinstance(batch, Tensor):
        return cast(BatchT, batch.clone())
    parts = None if _is_shared(batch) else _parts(batch)
    if parts is None:
        return batch
    own = {name: part if type(part) in _PLAIN else own_parts(part) for name, part in parts}
    try:
        return cast(BatchT, _rebuild(batch, own, "batch"))
    except TypeError:
        return batch


def count_rows(batch: Any) -> int:
    """The number of rows B that everything in a batch has which has rows.

    Raises:
        ValueError: if two parts disagree, or nothing has rows.
        TypeError: as `map_rows`, and for lists whose items may be rows or not (`_check_lists`).
    """
    found: dict[str, Any] = {}

    def note(rows: Any, path: str) -> Any:
        found[path] = rows
        return rows

    # The same walk as the one that repeats: what can't be made anew is refused in every plan, not only in some.
    map_rows(batch, note)
    if not found:
        raise ValueError("the batch holds nothing that has rows: pass what loss_fn reads as the batch")
    counts = sorted({len(rows) for rows in found.values()})
    if len(counts) > 1:
        raise ValueError(_disagreement(found, counts))
    _check_lists(batch, counts[0])
    return counts[0]


def _check_lists(batch: Any, rows: int) -> None:
    """Refuses lists and tuples of B records with tensors, and of B lists of B items: rows, or parts of the batch."""
    for path, items in _lists(batch, "batch"):
        is_table = _is_row_list(items) and all(_is_sequence(item) and len(item) == rows for item in items)
        is_records = not _is_row_list(items) and all(
            _is_record(item) and type(item) is type(items[0]) for item in items
        )
        if len(items) == rows and (is_table or is_records):
            kind = _name(items[0])
            each = f" of {rows}" if is_table else ""
            raise TypeError(
                f"{path} is {_a(items)} of {rows} {kind}s{each} beside {rows} rows, which may be one for each row or "
                f"parts of the batch. If the former, pass padded tensors of {rows} rows; if the "
                f"latter, the {kind}s under names (a dict, a named tuple)"
            )


def _disagreement(found: Mapping[str, Any], counts: list[int]) -> str:
    """One line that names two parts that differ."""
    named: dict[int, str] = {}
    for path, rows in found.items():
        kind = f"a tensor {tuple(rows.shape)}" if isinstance(rows, Tensor) else f"{_a(rows)} of {len(rows)}"
        named.setdefault(len(rows), f"{path} is {kind}")
    shown = "; ".join(named[count] for count in counts[:3])
    return (
        f"everything in a batch that has rows must share their number (a tensor's dimension 0, a list's items), but "
        f"there are {counts} rows: {shown}. Pass what differs from row to row as one padded tensor, and what all "
        "rows share as 0-dim tensors, as numbers under names (a dict, a named tuple), or torch.Size for a size"
    )


def _is_shared(value: Any) -> bool:
    """Whether a leaf belongs to all rows: a name, a number, and what has no dimensions (NumPy's numbers too)."""
    if type(value) in _PLAIN:
        return True
    if isinstance(value, Tensor):
        return value.dim() == 0
    return isinstance(value, _SHARED) or getattr(value, "shape", None) == ()


def _is_row_list(value: Any) -> bool:
    """Whether the items of a list or tuple are rows, rather than parts of the batch: there are no rows within."""
    return _is_sequence(value) and len(value) > 0 and all(map(_is_rowless, value))


def _is_rowless(value: Any) -> bool:
    if _is_shared(value):
        return True
    parts = None if isinstance(value, Tensor) else _parts(value)
    return parts is not None and all(_is_rowless(part) for _, part in parts)


def _is_sequence(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and not _is_named(value)


def _is_named(value: Any) -> bool:
    return isinstance(value, tuple) and hasattr(value, "_fields")


def _is_record(value: Any) -> bool:
    return isinstance(value, Mapping) or _is_dataclass(value) or _is_named(value)


def _is_dataclass(value: Any) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def _lists(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """The lists and tuples of a batch that aren't empty, with their places; none that is an item of another's row."""
    parts = None if _is_shared(value) or isinstance(value, Tensor) else _parts(value)
    if parts and _is_sequence(value):
        yield path, value
    if parts and not _is_row_list(value):
        for name, part in parts:
            yield from _lists(part, path + _place(value, name))


def _check_tensor(tensor: Tensor, path: str) -> None:
    # A tensor of a subclass may keep its rows anywhere, and forgets what it is when it is joined to another.
    plain = type(tensor) in (Tensor, nn.Parameter)
    if not plain or tensor.is_nested or tensor.layout != torch.strided or tensor.is_quantized:
        raise TypeError(f"{path} is {_a(tensor)}, which can't be repeated by rows: pass {_instead(tensor)}")


def _check_row_list(items: Any, path: str) -> None:
    """Refuses tuples but those of strings: `default_collate` makes those, while (32, 32) is a size for all rows."""
    texts = [item for item in items if item is not None]
    if isinstance(items, tuple) and not (texts and all(isinstance(item, _TEXTS) for item in texts)):
        raise TypeError(
            f"{path} is {_a(items)} of {len(items)} {_name(items[0])}s, which may be one for each row or what all rows "
            "share. If the former, pass a tensor or a list; if the latter, give them names (a dict, a named tuple), or "
            "pass torch.Size for a size"
        )


def _parts(value: Any) -> list[tuple[Any, Any]] | None:
    """The named parts of a container, or None for a leaf."""
    if isinstance(value, PackedSequence):
        return None
    if isinstance(value, Mapping):
        return list(value.items()) if isinstance(value, _MAPPINGS) else None
    if _is_named(value):
        return list(zip(value._fields, value, strict=True))
    if isinstance(value, (list, tuple)):
        return list(enumerate(value))
    return list(_attributes(value).items()) if _is_dataclass(value) else None


def _attributes(value: Any) -> dict[str, Any]:
    """What an object holds by itself: its fields and what was set beside them, less what it computes from them.

    A `cached_property` that was read of B rows would stay what it was for M·B.
    """
    names = [name for name in getattr(value, "__dict__", ()) if not name.startswith("__")]
    if _is_dataclass(value):
        # Fields in slots, and those that were never set.
        names += [field.name for field in dataclasses.fields(value) if field.name not in names]
    is_cached = {name: isinstance(getattr(type(value), name, None), functools.cached_property) for name in names}
    return {name: getattr(value, name) for name in names if hasattr(value, name) and not is_cached[name]}


def _rebuild(value: Any, parts: Mapping[Any, Any], path: str) -> Any:
    """A container of the same type with other parts."""
    kind: Any = type(value)
    if _is_named(value):
        return kind._make(parts.values())
    if isinstance(value, defaultdict) and kind is defaultdict:
        return defaultdict(value.default_factory, parts)
    if _is_dataclass(value) and not isinstance(value, (Mapping, list, tuple)):
        # Not through the constructor, which may change again what it has changed before, or ask for what isn't kept.
        made = object.__new__(kind)
        for name, part in parts.items():
            object.__setattr__(made, name, part)
        return made
    return _remake(value, dict(parts) if isinstance(value, Mapping) else list(parts.values()), path)


def _remake(value: Any, parts: Any, path: str) -> Any:
    """A mapping, list or tuple of the same type, with what was set on it beside its parts if all rows share that."""
    plain = "dict" if isinstance(value, Mapping) else "list"
    refusal = TypeError(f"{path} is {_a(value)}, which can't be made anew: pass a {plain} of its parts")
    try:
        made = cast(Any, type(value))(parts)
    except TypeError:
        raise refusal from None
    kept = _attributes(value)
    if not kept.keys() <= _attributes(made).keys() | {name for name, beside in kept.items() if _is_shared(beside)}:
        raise refusal
    for name, beside in kept.items():
        if _is_shared(beside):
            object.__setattr__(made, name, beside)
    return made


def _place(value: Any, name: Any) -> str:
    return f"[{name!r}]" if isinstance(value, Mapping) or _is_sequence(value) else f".{name}"


def _name(value: Any) -> str:
    """The type of a value, as a message calls it."""
    if isinstance(value, Tensor) and type(value) is Tensor:
        if value.is_nested:
            return "nested tensor"
        if value.is_quantized:
            return "quantized tensor"
        return "tensor" if value.layout == torch.strided else f"tensor of layout {value.layout}"
    return type(value).__name__


def _a(value: Any) -> str:
    name = _name(value)
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def _instead(value: Any) -> str:
    """What to pass in place of a value that is refused."""
    if isinstance(value, PackedSequence):
        return "the padded tensor (B, T, ...) and the lengths (B,), and pack them in loss_fn"
    if isinstance(value, Tensor):
        return _tensor_instead(value)
    if isinstance(value, Distribution):
        return "its parameters as tensors of B rows, and make the distribution in loss_fn"
    if type(value).__name__ == "ndarray":
        return "torch.from_numpy(array), or a list for strings"
    if isinstance(value, Mapping):
        return "a dict of its tensors"
    if isinstance(value, Iterable):
        return "a list with one item for each row, or a tensor"
    return "its tensors of B rows in a dict, list, named tuple or dataclass; give loss_fn other things by a closure"


def _tensor_instead(tensor: Tensor) -> str:
    if tensor.is_nested:
        return "the padded tensor (B, T, ...) and the lengths (B,), and nest them in loss_fn"
    if tensor.is_quantized:
        return "tensor.dequantize()"
    if tensor.layout != torch.strided:
        return "tensor.to_dense()"
    return "a plain torch.Tensor of its rows (of a DTensor, to_local() or full_tensor())"
