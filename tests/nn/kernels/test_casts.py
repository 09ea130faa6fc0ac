"""Weights that are cast once for all passes of an update."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from seqba.nn.kernels import casts, products
from seqba.nn.kernels.casts import narrow, shared_cast, shared_casts
from seqba.nn.kernels.linear import linear


def test_passes_share_a_cast_inside_and_nowhere_else() -> None:
    weight = nn.Parameter(torch.randn(3, 4))
    assert narrow(weight, torch.float32) is weight
    assert narrow(weight, torch.bfloat16) is not narrow(weight, torch.bfloat16)
    assert shared_cast(weight, torch.bfloat16) is None
    with shared_casts():
        cast = narrow(weight, torch.bfloat16)
        assert torch.equal(cast, weight.bfloat16())
        assert not cast.requires_grad
        assert narrow(weight, torch.bfloat16) is cast is shared_cast(weight, torch.bfloat16)
        assert shared_cast(weight, torch.float32) is None
        assert narrow(weight, torch.float16).dtype == torch.float16
    assert shared_cast(weight, torch.bfloat16) is None
    with shared_casts(enabled=False):
        assert shared_cast(weight, torch.bfloat16) is None


def test_a_weight_that_is_written_to_is_cast_again() -> None:
    weight = nn.Parameter(torch.ones(3, 4))
    with shared_casts():
        narrow(weight, torch.bfloat16)
        with torch.no_grad():
            weight.fill_(2)
        assert torch.equal(narrow(weight, torch.bfloat16), weight.bfloat16())


def test_a_cast_goes_with_its_weight() -> None:
    weight = torch.randn(3, 4)
    with shared_casts():
        cast = weakref.ref(narrow(weight, torch.bfloat16))
        del weight
        gc.collect()
        assert cast() is None


def test_casts_go_with_the_update_at_once() -> None:
    weight = nn.Parameter(torch.randn(3, 4))
    gc.disable()  # the narrow weights of a large model don't wait for a collection
    try:
        with shared_casts():
            cast = weakref.ref(narrow(weight, torch.bfloat16))
            assert cast() is not None
        assert cast() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("shared", [False, True])
def test_gradients_are_the_same_and_add_up_in_float32(shared: bool) -> None:
    torch.manual_seed(0)
    layer, x = nn.Linear(6, 4), torch.randn(5, 6, requires_grad=True)
    with shared_casts(enabled=shared):
        for _ in range(2):
            with torch.autocast("cpu", torch.bfloat16):
                z = linear(x, layer)
            z.float().sum().backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad.dtype == torch.float32
    expected = (torch.ones(4, 5).bfloat16() @ x.detach().bfloat16()).float() * 2
    torch.testing.assert_close(layer.weight.grad, expected, rtol=0.01, atol=0.05)


def test_casts_that_are_kept_for_the_next_update_are_made_again_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, where all are cast in one kernel; fused optimizers don't tell that they have written to a weight."""
    monkeypatch.setattr(casts, "_of_last_update", {})
    monkeypatch.setattr(casts, "_on_gpu", lambda shared: shared)
    weight = torch.nn.Parameter(torch.randn(3, 4))
    with casts.shared_casts():
        first = casts.narrow(weight, torch.bfloat16)
    optimizer = torch.optim.AdamW([weight], lr=0.1, fused=True)
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    with casts.shared_casts():
        second = casts.narrow(weight, torch.bfloat16)
    assert second is first
    assert torch.equal(second, weight.detach().to(torch.bfloat16))


def test_a_weight_that_has_moved_or_grown_in_between_is_cast_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """`Module.cpu()` puts other memory under the same parameter."""
    monkeypatch.setattr(casts, "_of_last_update", {})
    monkeypatch.setattr(casts, "_on_gpu", lambda shared: shared)
    weight = torch.nn.Parameter(torch.randn(3, 4))
    with casts.shared_casts():
        casts.narrow(weight, torch.bfloat16)
    weight.data = torch.randn(5, 4)
    with casts.shared_casts():
        assert torch.equal(casts.narrow(weight, torch.bfloat16), weight.bfloat16())


def test_products_wider_than_their_factors_are_for_nvidias_gpus_alone() -> None:
    """The operator is no other device's."""

    class Operators(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            seen.append(str(func))
            return func(*args, **(kwargs or {}))

    seen: list[str] = []
    with Operators():
        wide = products.product_as(*torch.empty(2, 3, 4, dtype=torch.bfloat16, device="meta"), torch.float32)
    assert wide.dtype == torch.float32
    assert "aten.mm.dtype" not in seen
