"""Dropout modules: keyed inside an update, ordinary outside one."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import seqba
from seqba.core import Noise, noise_context
from seqba.random.masks import BLOCK_NUMBERS, drop


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_kept_elements_are_scaled_so_that_the_mean_stays(dtype: torch.dtype) -> None:
    module = seqba.nn.Dropout(0.3)
    with noise_context(Noise(0, 0, 0, (0, 1))):
        y = module(torch.ones(64, 1000, dtype=dtype))
    assert y.dtype == dtype
    assert len(y.unique()) == 2
    assert y.max().item() == pytest.approx(1 / 0.7, rel=1e-2 if dtype is torch.bfloat16 else 1e-4)
    assert y.double().mean().item() == pytest.approx(1, abs=0.01)


def test_the_backward_goes_through_the_same_mask() -> None:
    module = seqba.nn.Dropout(0.4)
    x = torch.randn(6, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)

    def keyed(x: torch.Tensor) -> torch.Tensor:
        with noise_context(Noise(0, 0, 0, (0,))):
            return module(x)

    assert torch.autograd.gradcheck(keyed, (x,))


@pytest.mark.parametrize("shape", [(6, 10), (2, 3 * BLOCK_NUMBERS // 4), (3, 5, 2 * BLOCK_NUMBERS // 15 + 1), (0, 10)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropping_and_adding_in_blocks_is_doing_so_at_once(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    module = seqba.nn.Dropout(0.4)
    torch.manual_seed(0)
    x, residual = torch.randn(shape).to(dtype).requires_grad_(), torch.randn(shape, requires_grad=True)
    with noise_context(Noise(0, 0, 0, (0,))):
        total = module.add(residual, x)
    with noise_context(Noise(0, 0, 0, (0,))):
        kept = module(torch.ones(shape))
    assert total.dtype == torch.float32
    assert torch.equal(total, residual + x.float() * kept)
    upstream = torch.randn(shape)
    by_x, by_residual = torch.autograd.grad(total, [x, residual], upstream)
    assert torch.equal(by_x, (upstream * kept).to(dtype))
    assert torch.equal(by_residual, upstream)


def test_adding_has_gradients_of_gradients() -> None:
    module = seqba.nn.Dropout(0.4)
    inputs = [torch.randn(3, 4, dtype=torch.float64, requires_grad=True) for _ in range(2)]

    def keyed(residual: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        with noise_context(Noise(0, 0, 0, (0,))):
            return module.add(residual, x.square())

    torch.manual_seed(0)
    assert torch.autograd.gradcheck(keyed, inputs)
    assert torch.autograd.gradgradcheck(keyed, inputs)


@pytest.mark.parametrize("adds", [False, True])
def test_a_compiler_differentiates_torchs_own_operations(adds: bool) -> None:
    """torch 2.11 loses the gradient of a traced autograd function that writes into its result."""
    graphs: list[torch.fx.GraphModule] = []

    def keep(graph: torch.fx.GraphModule, _: object) -> object:
        graphs.append(graph)
        return graph

    torch.manual_seed(1)
    x, residual = (torch.randn(6, 5, requires_grad=True) for _ in range(2))
    kept = (torch.rand(6, 5) > 0.5).to(torch.int8)

    def dropped(x: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        return drop(x, kept, 0.5, residual if adds else None)

    compiled = torch.compile(dropped, backend=keep, fullgraph=True)(x, residual)
    torch.testing.assert_close(compiled, dropped(x, residual))
    inputs = (x, residual) if adds else (x,)
    by_graph, expected = (torch.autograd.grad(y.square().sum(), inputs) for y in (compiled, dropped(x, residual)))
    torch.testing.assert_close(by_graph, expected)
    called = [str(node.target) for graph in graphs for node in graph.graph.nodes if node.op.startswith("call")]
    assert called
    assert not [name for name in called if "autograd_function" in name]


def test_what_is_added_may_be_broadcast() -> None:
    module = seqba.nn.Dropout(0.4)
    with noise_context(Noise(0, 0, 0, (0,))):
        total = module.add(torch.full((10,), 3.0), torch.ones(6, 10))
    assert total.shape == (6, 10)
    assert total.unique().numel() == 2


def test_locked_dropout_holds_its_mask_over_time_and_differs_between_rows() -> None:
    module = seqba.nn.LockedDropout(0.5)
    x = torch.ones(4, 7, 32)
    torch.manual_seed(0)
    with noise_context(Noise(0, 0, 0, (0, 1))):
        keyed = module(x)
    for y in (keyed, module(x)):
        assert torch.equal(y, y[:, :1].expand_as(y))
        assert len({tuple(row.tolist()) for row in y[:, 0]}) == 4


@pytest.mark.parametrize("kind", [seqba.nn.Dropout, seqba.nn.LockedDropout])
def test_outside_an_update_it_is_ordinary(kind: type[nn.Module]) -> None:
    module = kind(0.5)
    x = torch.ones(3, 4, 50)
    torch.manual_seed(0)
    first = module(x)
    torch.manual_seed(0)
    assert torch.equal(module(x), first)
    assert not torch.equal(module(x), first)
    assert module.eval()(x) is x
    with noise_context(Noise(0, 0, 0, (0,))):
        assert module(x) is x


def test_ordinary_dropout_is_the_frameworks() -> None:
    x = torch.ones(5, 6)
    torch.manual_seed(0)
    ours = seqba.nn.Dropout(0.5)(x)
    torch.manual_seed(0)
    assert torch.equal(ours, nn.functional.dropout(x, 0.5))


@pytest.mark.parametrize("p", [-0.1, 1.0, float("nan")])
def test_impossible_probabilities_are_refused(p: float) -> None:
    with pytest.raises(ValueError, match=r"it must be in \[0, 1\)"):
        seqba.nn.Dropout(p)


def test_locked_dropout_needs_a_time_dimension() -> None:
    with pytest.raises(ValueError, match=r"needs \(rows, time"):
        seqba.nn.LockedDropout(0.5)(torch.ones(3))
