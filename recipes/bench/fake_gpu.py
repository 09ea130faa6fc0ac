"""A GPU of fake tensors: every operation of an update is dispatched and counted, and none is computed.

PyTorch's fake tensors have shapes, types and a device, and no data; a device of its own is made known to torch in
Python. So what a real GPU would be asked to do can be counted without one: kernels to launch, values that the host
waits for, and tensors that were left on the CPU, which are errors here as they are there. What a GPU does in its own
way goes its way here too: the keyed draws are one operator each, and attention one forward and one backward.

The device stays known for the process's life. Needs PyTorch 2.10 or later.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode

from seqba.nn.kernels import flash, products
from seqba.rows import nested

NAME = "fakegpu"
ALLOCATING = ("empty", "new_empty", "empty_like", "empty_strided", "new_empty_strided")
READING = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal", "_unique2")


class _Module(backend_registration._DummyBackendModule):
    """What torch asks a device for under autocast."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]


_autocast: torch.library.Library | None = None


@cache
def fake_device() -> torch.device:
    """The device; made known to torch at the first call."""
    global _autocast
    backend_registration._setup_privateuseone_for_python_backend(NAME, _Module())
    _autocast = torch.library.Library("_", "IMPL", "AutocastPrivateUse1")  # the library's own casts are all there are
    _autocast.fallback(torch.library.fallthrough_kernel)
    return torch.device(NAME, 0)


class Dispatched(TorchDispatchMode):
    """Counts what is dispatched.

    Attributes:
        launches: operations that a GPU computes, by name: all but views and the making of empty memory.
        waits: operations that a host can't go on without, by name: values that are read, tensors that are copied to
            the CPU, and shapes that depend on values.
        sent: tensors that are copied from the CPU.
    """

    def __init__(self) -> None:
        super().__init__()
        self.launches: Counter[str] = Counter()
        self.waits: Counter[str] = Counter()
        self.sent: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, _types: Any, given: Any = (), named: Any = None) -> Any:
        named = named or {}
        name = function._schema.name.removeprefix("aten::")
        source = _first_tensor(given)
        if name in READING and source is not None and source.device.type == NAME:
            self.waits[name] += 1
        if name == "_local_scalar_dense" and source is not None:
            return 1.0 if source.is_floating_point() else 1
        result = function(*given, **named)
        if source is not None and isinstance(result, Tensor) and name in ("_to_copy", "copy_"):
            origin = given[1] if name == "copy_" else source
            if origin.device.type != result.device.type:
                (self.sent if result.device.type == NAME else self.waits)[name] += 1
        if (
            not name.startswith("prim::")
            and name not in ALLOCATING
            and not _is_view(function)
            and _is_there(given, result)
        ):
            self.launches[name] += 1
        return result


@contextmanager
def fake_gpu() -> Iterator[Dispatched]:
    """Inside, tensors are fake; made on `fake_device()`, what is done with them is counted."""
    device = fake_device()
    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(nn.functional, ATTENTION, _attention))
        stack.enter_context(mock.patch.object(nested, "_check_tensor"))  # refuses subclasses of tensors
        stack.enter_context(mock.patch.object(flash, "has_flash_attention", return_value=True))
        stack.enter_context(mock.patch.object(products, "has_wide_products", return_value=True))
        stack.enter_context(FakeTensorMode())
        stack.enter_context(torch.device(device))
        yield stack.enter_context(Dispatched())


ATTENTION = "scaled_dot_product_attention"


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
) -> Tensor:
    """torch's fused attention as a GPU dispatches it: one operator, after one that makes a mask of booleans a bias."""
    assert not dropout_p
    bias = attn_mask
    if bias is not None:
        if bias.dtype == torch.bool:
            bias = torch.where(bias, 0.0, float("-inf")).to(query.dtype)
        bias = bias.expand(*query.shape[:3], key.shape[2])
    result: Tensor = torch.ops.aten._scaled_dot_product_efficient_attention(
        query, key, value, bias, torch.is_grad_enabled(), 0.0, is_causal
    )[0]
    return result


def _first_tensor(given: Any) -> Tensor | None:
    return next((value for value in given if isinstance(value, Tensor)), None)


def _is_view(function: Any) -> bool:
    """Whether an operator returns its argument's memory without writing to it, or nothing that is computed."""
    returned, arguments = function._schema.returns, function._schema.arguments
    aliases = [value.alias_info for value in returned]
    if any(argument.alias_info is not None and argument.alias_info.is_write for argument in arguments):
        return False
    return bool(aliases) and all(alias is not None for alias in aliases)


def _is_there(given: Any, result: Any) -> bool:
    """Whether an operation has anything to do with the device."""
    values = [*given, *(result if isinstance(result, (tuple, list)) else [result])]
    flat = [one for value in values for one in (value if isinstance(value, (tuple, list)) else [value])]
    return any(isinstance(value, Tensor) and value.device.type == NAME for value in flat)
