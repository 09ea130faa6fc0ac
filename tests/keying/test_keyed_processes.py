"""Several processes draw what one does, where they share copies and where they have rows of their own."""

from __future__ import annotations

import pytest
import torch
from foreign_models import gradient, make_model, make_rows, square_loss
from keyed_gradients import keyed_gradient
from keyed_world import NAMES, on_processes
from rank_groups import Results, run_groups
from small_network import relative_error

import seqba


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return run_groups(on_processes, [2], tmp_path_factory.mktemp("groups"))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_processes_that_share_the_copies_draw_what_one_does(processes: Results, name: str) -> None:
    expected = keyed_gradient(make_model(name), plan="stacked")
    for found in processes.values():
        assert relative_error(found[name], expected) < 1e-12


@pytest.mark.slow
@pytest.mark.parametrize("way", ["merged", "copies", "sharded"])
def test_processes_with_rows_of_their_own_have_the_mean_of_what_one_draws(processes: Results, way: str) -> None:
    own = []
    for rank in range(2):
        model = make_model("Transformer")
        key = {"update": 3, "micro_batch": rank}
        seqba.merged_gradient(model, make_rows(seed=rank), square_loss, copies=3, keyed=True, **key)
        own.append(gradient(model))
    for found in processes.values():
        assert relative_error(found[way], torch.stack(own).mean(0)) < 1e-12


@pytest.mark.slow
def test_only_the_last_pass_exchanges_gradients_and_only_if_it_shall(processes: Results) -> None:
    for found in processes.values():
        assert found["messages"] == 1
        assert found["messages without exchange"] == 0
