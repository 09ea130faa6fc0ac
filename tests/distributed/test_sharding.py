"""Sharded parameters: the gradients, weights and losses of one process, with real processes that each hold a part."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from rank_groups import Results, run_groups
from sharded_world import SIZES, accumulate, everything, narrow, run_lonely, train, tried
from small_network import relative_error
from torch import nn
from torch.distributed.fsdp import FSDPModule

from seqba.core import merged_gradient
from seqba.distributed import Ranks, shard_parameters
from seqba.group import attach_group


@pytest.fixture(scope="module")
def results(sharding: None, tmp_path_factory: pytest.TempPathFactory) -> Results:
    return run_groups(everything, SIZES, tmp_path_factory.mktemp("sharded"))


class Foreign(nn.Linear):
    """As torch's fully_shard leaves a module."""

    def unshard(self) -> None: ...

    def reshard(self) -> None: ...

    def set_reshard_after_forward(self, reshard_after_forward: bool, recurse: bool = True) -> None: ...


@pytest.mark.parametrize(
    ("where", "name"), [(FSDPModule, "set_reduce_scatter_unused_params"), (torch.distributed, "reduce_scatter_single")]
)
def test_a_torch_without_one_of_the_means_is_refused(where: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(where, name, raising=False)  # as in torch 2.12 and earlier
    expected = f"^sharded parameters need torch 2.13 or later, and this is {re.escape(torch.__version__)}$"
    with pytest.raises(ValueError, match=expected):
        shard_parameters(nn.Linear(1, 1), Ranks(0, 2), torch.device("cpu"), blocks=[])


def test_gradients_that_would_be_too_large_or_too_small_are_refused() -> None:
    ones = torch.ones(1, 1)
    own, foreign = nn.Linear(1, 1), Foreign(1, 1)
    attach_group(own, Ranks(0, 2))  # as shard_parameters does
    with pytest.raises(ValueError, match="pass ranks="):
        merged_gradient(own, ones, lambda model, x: model(x).mean(), copies=2)
    with pytest.raises(ValueError, match="take shard_parameters"):
        merged_gradient(foreign, ones, lambda model, x: model(x).mean(), copies=2, ranks=Ranks(0, 2))


@pytest.mark.slow
@pytest.mark.parametrize("plan", ["looped", "two", "unsharded"])
def test_weights_statistics_losses_and_averages_are_those_of_one_process(results: Results, plan: str) -> None:
    alone = train(None, "looped")
    for (size, rank), result in results.items():
        sharded = result[plan]
        for name, expected in alone["state"].items():
            torch.testing.assert_close(sharded["state"][name], expected, rtol=1e-10, atol=1e-12, msg=name)
        for average, expected in zip(sharded["averages"], alone["averages"], strict=True):
            torch.testing.assert_close(average, expected, rtol=1e-9, atol=1e-12)
        for step, expected in zip(sharded["steps"], alone["steps"], strict=True):
            assert step == pytest.approx(expected, rel=1e-10), (size, rank)


@pytest.mark.slow
def test_each_rank_has_its_part_of_weights_and_averages_and_all_are_there(results: Results) -> None:
    alone = train(None, "looped")
    for size in SIZES:
        for what, share in (("held", 1), ("kept", 2)):
            parts = [results[size, rank]["looped"][what] for rank in range(size)]
            assert sum(parts) == alone[what] == share * alone["held"]
            assert max(parts) <= alone[what] / size * 1.3  # sevens and fives in parts, and a parameter of one number


@pytest.mark.slow
def test_gradients_from_before_are_added_up_once(results: Results) -> None:
    alone = accumulate(None)
    for result in results.values():
        assert result["accumulate"].keys() == alone.keys()
        for name, expected in alone.items():
            torch.testing.assert_close(result["accumulate"][name], expected, rtol=1e-10, atol=1e-12, msg=name)


@pytest.mark.slow
def test_one_autocast_around_all_passes_leaves_no_gradient_behind(results: Results) -> None:
    """Casts that autocast keeps from pass to pass had gradients of blocks come an update late."""
    alone = narrow(None)
    for result in results.values():
        for name, gradient in result["narrow"].items():
            assert relative_error(gradient, alone[name]) < 0.05, name


@pytest.mark.slow
def test_what_is_tried_without_noise_sees_the_weights_as_they_are(results: Results) -> None:
    for result in results.values():
        for output, expected in zip(result["tried"], tried(None), strict=True):
            torch.testing.assert_close(output, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.slow
def test_a_whole_tensor_is_cut_as_its_parameter_is(results: Results) -> None:
    assert all(result["taken over"] for result in results.values())


@pytest.mark.slow
@pytest.mark.usefixtures("sharding")
def test_a_rank_that_has_gone_is_called_lost_in_the_middle_of_a_pass(tmp_path: Path) -> None:
    assert run_lonely(tmp_path) == [True, True]


def test_ranks_beyond_the_cells_have_an_empty_range() -> None:
    assert [Ranks(rank, 4).cells(1, 2) for rank in range(4)] == [
        [(0, range(0))],
        [(0, range(1))],
        [(0, range(1, 1))],
        [(0, range(1, 2))],
    ]
    assert [Ranks(rank, 3).cells(2, 1) for rank in range(3)] == [[(0, range(0))], [(0, range(1))], [(1, range(1))]]


def test_a_rank_without_a_copy_of_a_merged_gradient_is_refused() -> None:
    model = torch.nn.Linear(1, 1)
    with pytest.raises(ValueError, match="3 ranks for 1 micro-batches × 2 copies = 2 cells: take at most 2 ranks"):
        merged_gradient(model, torch.ones(1, 1), lambda m, x: m(x).mean(), copies=2, ranks=Ranks(0, 3))
