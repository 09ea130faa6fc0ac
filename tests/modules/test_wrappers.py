"""Wrappers around a model change no draw; those that mean over processes give each process draws of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from rank_groups import Results, run_groups
from small_network import make_batch, relative_error, summed_loss
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from wrapped_world import in_data_parallel, in_sharding, make_network, mean_of_processes, plain_masks

import seqba
from seqba.modules.wrappers import module_names


class Holder(nn.Module):
    """As DistributedDataParallel and others hold a model."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *given: Any) -> Any:
        return self.module(*given)


def with_inner_checkpoint(network: nn.Module) -> nn.Module:
    network.dropout = checkpoint_wrapper(network.dropout)
    return network


@pytest.mark.filterwarnings("ignore")  # torch.compile warns of its own tracing
@pytest.mark.parametrize(
    "wrap",
    [
        lambda network: torch.compile(network, backend="eager"),
        Holder,
        lambda network: Holder(torch.compile(Holder(network), backend="eager")),
        checkpoint_wrapper,
        with_inner_checkpoint,
        torch.nn.DataParallel,
    ],
    ids=["compile", "holder", "holders", "checkpoint", "inner checkpoint", "DataParallel on a CPU"],
)
def test_a_wrapped_model_draws_the_masks_of_the_model_in_it(wrap: Any) -> None:
    bare = plain_masks(make_network())
    masks = plain_masks(wrap(make_network()))
    assert len(masks) >= len(bare) == 3
    assert all(torch.equal(one, other) for one, other in zip(masks, bare, strict=False))


def test_two_modules_of_one_name_draw_different_masks() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.drop = seqba.nn.Dropout(0.5)
            self.module = nn.ModuleDict({"drop": seqba.nn.Dropout(0.5)})

    model = Both()
    names = module_names(model)
    assert names[id(model.drop)] == names[id(model.module["drop"])] == "drop"
    noise = seqba.core.Noise(0, 0, 0, (0,), names)
    one, other = (
        noise.keep_mask(owner, (8, 8), 0.5, torch.device("cpu")) for owner in (model.drop, model.module["drop"])
    )
    assert not torch.equal(one, other)


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return run_groups(in_data_parallel, [2], tmp_path_factory.mktemp("groups"))


@pytest.mark.slow
@pytest.mark.parametrize("plan", ["looped", "stacked", "2", "auto"])
def test_data_parallel_means_over_rows_that_have_masks_of_their_own(processes: Results, plan: str) -> None:
    expected = mean_of_processes(2)
    for (_, rank), found in processes.items():
        assert relative_error(found[f"gradient {plan}"], expected) < 1e-12
        assert found[f"messages {plan}"] == 1
        assert found[f"weight {plan}"] == 3 * (4 + rank)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["recomputed", "compiled", "after a failure"])
def test_data_parallel_goes_with_recomputation_compilation_and_failed_updates(processes: Results, way: str) -> None:
    for found in processes.values():
        assert relative_error(found[way], mean_of_processes(2)) < 1e-12


@pytest.mark.slow
@pytest.mark.parametrize("way", ["two micro-batches", "grid", "buckets"])
def test_micro_batches_are_numbered_over_the_processes(processes: Results, way: str) -> None:
    for found in processes.values():
        assert relative_error(found[way], mean_of_processes(2, micro_batches=2)) < 1e-12


@pytest.mark.slow
def test_ranks_beside_data_parallel_are_refused_and_ordinary_dropout_differs_too(processes: Results) -> None:
    for found in processes.values():
        assert "DistributedDataParallel" in found["refused"]
        assert "model.module" in found["refused"]
        assert found["ordinary masks differ"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("way", "told"),
    [
        ("model in it", "so that no gradient was exchanged: call the model that it is given"),
        ("passes", "so that no gradient was exchanged: call the model that it is given"),
        ("put off", ""),  # the caller's no_sync: nothing is to be exchanged
        ("wrapper around it", "a DistributedDataParallel that isn't in it, whose processes would all draw the same"),
        ("wrapper beside ranks", "a DistributedDataParallel that isn't in it, whose processes would all draw the same"),
        ("compiled in it", "a DistributedDataParallel that isn't in it, whose processes would all draw the same"),
    ],
)
def test_a_loss_function_that_calls_another_model_than_the_one_passed_is_refused(
    processes: Results, way: str, told: str
) -> None:
    for found in processes.values():
        assert told in found["around the wrapper"][way]
        assert bool(told) == bool(found["around the wrapper"][way])


@pytest.mark.slow
def test_a_static_graph_must_have_exchanged_gradients_once(processes: Results) -> None:
    for found in processes.values():
        assert "static_graph=True) must exchange gradients in its first backward" in found["static graph refused"]
        assert relative_error(found["static graph"], mean_of_processes(2)) < 1e-12


@pytest.mark.slow
def test_copies_are_compared_in_every_plan_of_data_parallel(processes: Results) -> None:
    for result in processes.values():
        stacked, looped = result["compared"]
        torch.testing.assert_close(looped, stacked, rtol=1e-10, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 2])
def test_sharding_by_others_means_over_rows_that_have_masks_of_their_own(size: int, tmp_path: Path) -> None:
    results = run_groups(in_sharding, [size], tmp_path)
    for found in results.values():
        for plan in ("looped", "stacked", "auto"):
            assert relative_error(found[f"fully_shard {plan}"], mean_of_processes(size)) < 1e-12
        # Casts that one pass left to the next had its gradients come too late, in the update after.
        assert relative_error(found["autocast around the update"], found["autocast around the pass"]) < 1e-6
        assert "model.module" in found["refused"]
        assert "(FSDP) don't go with compared=True" in found["not compared"]


def test_rows_dealt_over_threads_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = torch.nn.DataParallel(make_network())
    monkeypatch.setattr(model, "device_ids", [0, 1])
    with pytest.raises(ValueError, match="take DistributedDataParallel"):
        seqba.merged_gradient(model, make_batch(), summed_loss, copies=2)


class Engine(Holder):
    """A wrapper of another library: it exchanges gradients, and can be told not to."""

    def no_sync(self) -> None: ...


@pytest.mark.parametrize("compute", ["merged_gradient", "copies", "keyed", "check"])
def test_models_that_no_update_can_be_computed_with_are_refused_everywhere(compute: str) -> None:
    def run(model: nn.Module) -> None:
        if compute == "copies":
            seqba.copies(model, 2, update=0)
        elif compute == "keyed":
            with seqba.keyed(model):
                pass
        else:
            getattr(seqba, compute)(model, make_batch(), summed_loss, copies=2)

    with pytest.raises(ValueError, match="Engine exchanges gradients in a way that isn't known here: pass"):
        run(Engine(make_network()))
    scattered = make_network()
    scattered.leave.to("meta")
    with pytest.raises(ValueError, match=r"parameters are on several devices \(cpu, meta\).*move it"):
        run(scattered)
    with pytest.raises(TypeError, match=r"model must be a torch\.nn\.Module, not a str"):
        run("model")
